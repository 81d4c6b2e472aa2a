import os
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA_HOME = os.environ["CUDA_HOME"]
print("toolkit =", CUDA_HOME)


class BuildExtension(build_ext):
    """Compiles the .cu sources with nvcc, and leaves the rest to setuptools."""

    def build_extension(self, ext):
        kernels = [source for source in ext.sources if source.endswith(".cu")]
        ext.sources = [source for source in ext.sources if source not in kernels]
        for kernel in kernels:
            target = os.path.join(self.build_temp, kernel + ".o")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            include = "-I" + sysconfig.get_path("include")
            nvcc = os.path.join(CUDA_HOME, "bin", "nvcc")
            self.spawn([nvcc, "-arch=sm_86", "-Xcompiler=-fPIC", include, "-c", kernel, "-o", target])
            ext.extra_objects.append(target)
        super().build_extension(ext)


demo = Extension(
    "demo",
    ["demo.cu"],
    library_dirs=[os.path.join(CUDA_HOME, "lib64")],
    libraries=["cudart", "cublas", "cuda"],
    runtime_library_dirs=["$ORIGIN/nvidia/cu13/lib"],
    language="c++",
)
setup(
    name="demo",
    version="1",
    install_requires=["cuda-toolkit[cublas,cudart]==13.*"],
    ext_modules=[demo],
    cmdclass={"build_ext": BuildExtension},
)
