"""setuptools as a build backend, with the extension modules that need the toolkit."""

import os

from Cython.Build import cythonize
from setuptools import Extension
from setuptools import build_meta as _build_meta

prepare_metadata_for_build_wheel = _build_meta.prepare_metadata_for_build_wheel
get_requires_for_build_wheel = _build_meta.get_requires_for_build_wheel
get_requires_for_build_sdist = _build_meta.get_requires_for_build_sdist
build_sdist = _build_meta.build_sdist

extensions = []


def _cuda_path():
    # Not cuda.pathfinder: under pip, backend-path makes cuda this project's own directory and nothing else.
    path = os.environ.get("CUDA_PATH") or os.environ.get("CUDA_HOME")
    if not path:
        raise RuntimeError("CUDA_PATH or CUDA_HOME must be set to the CUDA toolkit")
    print("toolkit =", path)
    return path


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    path = _cuda_path()
    demo = Extension(
        "cuda.demo._demo",
        ["cuda/demo/_demo.pyx"],
        include_dirs=[os.path.join(path, "include")],
        library_dirs=[os.path.join(path, "lib64")],
        libraries=["cudart"],
        runtime_library_dirs=["$ORIGIN/../../nvidia/cu13/lib"],
        language="c++",
    )
    extensions[:] = cythonize([demo])
    return _build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
