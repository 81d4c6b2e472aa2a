import os
import subprocess

from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, include_paths, library_paths

print("toolkit =", CUDA_HOME)
print(subprocess.check_output([os.path.join(CUDA_HOME, "bin", "nvcc"), "--version"], text=True))

demo = CppExtension(
    "demo",
    ["demo.cpp"],
    include_dirs=include_paths("cuda"),
    library_dirs=library_paths("cuda"),
    libraries=["cudart"],
    runtime_library_dirs=["$ORIGIN/nvidia/cu13/lib"],
)
setup(name="demo", version="1", ext_modules=[demo], cmdclass={"build_ext": BuildExtension})
