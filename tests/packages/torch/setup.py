from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CUDAExtension

print("toolkit =", CUDA_HOME)

demo = CUDAExtension("demo", ["demo.cpp", "twice.cu"])
setup(
    name="demo",
    version="1",
    install_requires=["torch>=2.13"],
    ext_modules=[demo],
    cmdclass={"build_ext": BuildExtension},
)
