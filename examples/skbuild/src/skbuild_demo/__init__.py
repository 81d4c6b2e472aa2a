"""A CUDA kernel, a cuBLAS call and a CCCL algorithm on NumPy arrays.

Every function copies its arguments to the current CUDA device and its result back. All raise `CudaError` where CUDA or
cuBLAS reports an error: a machine without a GPU is such a case.
"""

import ctypes
import os
from pathlib import Path

import numpy as np

from skbuild_demo._build import CUDA_ARCHITECTURES, NVCC_VERSION

__all__ = ["CUDA_ARCHITECTURES", "NVCC_VERSION", "CudaError", "device_count", "matmul", "saxpy", "sort"]

_int_p = ctypes.POINTER(ctypes.c_int)
_text_p = ctypes.POINTER(ctypes.c_char_p)
_floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
_ints = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
_size = ctypes.c_int64

_name = "libskbuild_demo.so"
if os.name == "nt":  # no run paths there: the runtime wheels' bin/x86_64, or bin/arm64
    _name = "skbuild_demo.dll"
    for _directory in Path(__file__).parents[1].glob("nvidia/cu*/bin/*64"):
        os.add_dll_directory(str(_directory))
_library = ctypes.CDLL(str(Path(__file__).with_name(_name)))
_library.skbuild_demo_device_count.argtypes = [_int_p]
_library.skbuild_demo_describe.argtypes = [ctypes.c_int, _text_p, _text_p]
_library.skbuild_demo_saxpy.argtypes = [ctypes.c_float, _floats, _floats, _floats, _size]
_library.skbuild_demo_matmul.argtypes = [_floats, _floats, _floats, _size, _size, _size]
_library.skbuild_demo_sort.argtypes = [_ints, _ints, _size]


class CudaError(RuntimeError):
    """An error that CUDA or cuBLAS reported.

    code: the cudaError_t, or the negated cublasStatus_t. name: its name, such as "cudaErrorNoDevice".
    message: its description, such as "no CUDA-capable device is detected".
    """

    def __init__(self, code: int) -> None:
        name, message = ctypes.c_char_p(), ctypes.c_char_p()
        _library.skbuild_demo_describe(code, ctypes.byref(name), ctypes.byref(message))
        super().__init__(code)
        self.code = code
        self.name = (name.value or b"unknown").decode()
        self.message = (message.value or b"unknown").decode()

    def __str__(self) -> str:
        return f"{self.name} ({self.code}): {self.message}"


def device_count() -> int:
    """Return the number of CUDA devices; without any, or without a driver, CUDA reports an error instead."""
    count = ctypes.c_int()
    _check(_library.skbuild_demo_device_count(ctypes.byref(count)))
    return count.value


def saxpy(a: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ``a * x + y`` for float32 arrays of one shape, computed by a kernel."""
    x, y = _array("x", x, np.float32), _array("y", y, np.float32)
    if x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape, not {x.shape} and {y.shape}")
    out = np.empty_like(x)
    if out.size:
        _check(_library.skbuild_demo_saxpy(a, x, y, out, out.size))
    return out


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product of two float32 matrices, computed by cuBLAS."""
    a, b = _array("a", a, np.float32, 2), _array("b", b, np.float32, 2)
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"a must have as many columns as b has rows, but their shapes are {a.shape} and {b.shape}")
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    if a.size and b.size:
        _check(_library.skbuild_demo_matmul(a, b, out, *a.shape, b.shape[1]))
    return out


def sort(values: np.ndarray) -> np.ndarray:
    """Return a sorted copy of a one-dimensional int32 array, computed by CUB's radix sort."""
    values = _array("values", values, np.int32, 1)
    out = np.empty_like(values)
    if out.size:
        _check(_library.skbuild_demo_sort(values, out, out.size))
    return out


def _array(name: str, value: np.ndarray, dtype: type, dimensions: "int | None" = None) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != dtype:
        raise TypeError(f"{name} must be an array of {np.dtype(dtype)}, not of {array.dtype}")
    if dimensions is not None and array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimension(s), not {array.ndim}")
    # NumPy's ascontiguousarray would turn an array without dimensions into one with a dimension.
    return np.asarray(array, order="C")


def _check(code: int) -> None:
    if code:
        raise CudaError(code)
