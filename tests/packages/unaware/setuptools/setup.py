import os

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA_HOME = os.environ["CUDA_HOME"]
LIBRARIES = ["cudart", "cublas", "curand", "nccl"]
OPTIONS = ["-I" + CUDA_HOME + "/include", "-L" + CUDA_HOME + "/lib64", "-shared", *("-l" + name for name in LIBRARIES)]


class BuildExtension(build_ext):
    """Calls two linkers by itself, and leaves one module to setuptools."""

    def build_extension(self, ext):
        super().build_extension(ext)
        directory = os.path.dirname(self.get_ext_fullpath(ext.name))
        self.spawn(["g++", "-fPIC", "host.cpp", *OPTIONS, "-o", directory + "/libgcc.so"])
        nvcc = ["nvcc", "-Xcompiler=-fPIC", "-cudart=shared"]
        self.spawn([*nvcc, "kernel.cu", *OPTIONS, "-o", directory + "/libkernel.so"])


host = Extension(
    "demo.inner.host",
    ["host.cpp"],
    include_dirs=[CUDA_HOME + "/include"],
    library_dirs=[CUDA_HOME + "/lib64"],
    libraries=LIBRARIES,
)
setup(name="demo", version="1", packages=[], ext_modules=[host], cmdclass={"build_ext": BuildExtension})
