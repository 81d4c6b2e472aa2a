"""What ours is compared with: find nvcc on `sys.path`, set a few variables, and no more.

Proposed, in other words, in https://github.com/NVIDIA/cuda-python/issues/2060.
"""

import os
import sys

for entry in sys.path:
    home = os.path.join(entry, "nvidia", "cu13")
    nvcc = os.path.join(home, "bin", "nvcc")
    if os.path.isfile(nvcc):
        os.environ["CUDA_HOME"] = home
        os.environ["CUDACXX"] = nvcc
        directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
        if os.path.dirname(nvcc) not in directories:
            os.environ["PATH"] = os.pathsep.join([os.path.dirname(nvcc), *directories])
        break
