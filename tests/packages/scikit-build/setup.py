from skbuild import setup

setup(
    name="demo",
    version="1",
    packages=["demo"],
    cmake_install_dir="demo",
    install_requires=["cuda-toolkit[cublas,cudart]==13.*"],
)
