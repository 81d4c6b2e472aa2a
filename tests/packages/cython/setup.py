import os

from Cython.Build import cythonize
from setuptools import Extension, setup

CUDA_HOME = os.environ["CUDA_HOME"]
print("toolkit =", CUDA_HOME)

demo = Extension(
    "demo",
    ["demo.pyx"],
    include_dirs=[os.path.join(CUDA_HOME, "include")],
    library_dirs=[os.path.join(CUDA_HOME, "lib64")],
    libraries=["cudart"],
    runtime_library_dirs=["$ORIGIN/nvidia/cu13/lib"],
)
setup(
    name="demo",
    version="1",
    install_requires=["cuda-toolkit[cudart]==13.*"],
    ext_modules=cythonize([demo]),
)
