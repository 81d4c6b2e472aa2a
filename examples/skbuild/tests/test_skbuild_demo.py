import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skbuild_demo

LIBRARY = Path(skbuild_demo.__file__).with_name("libskbuild_demo.so")
# Reported without a driver, and without a device.
NO_GPU = {35: "cudaErrorInsufficientDriver", 100: "cudaErrorNoDevice"}

try:
    skbuild_demo.device_count()
    NO_GPU_REASON = ""
except skbuild_demo.CudaError as error:
    NO_GPU_REASON = str(error)

needs_gpu = pytest.mark.skipif(bool(NO_GPU_REASON), reason=f"needs a GPU: {NO_GPU_REASON}")
needs_no_gpu = pytest.mark.skipif(not NO_GPU_REASON, reason="needs a machine without a GPU")


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture(scope="module")
def loaded() -> dict[str, Path]:
    """The shared libraries of a process that imported the package, by name."""
    code = "import skbuild_demo; print(open('/proc/self/maps').read())"
    # LD_LIBRARY_PATH comes before a file's RUNPATH.
    environ = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    maps = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True).stdout
    return {path.name: path for path in map(Path, re.findall(r"/.*\.so.*", maps))}


def device_code(kind: str) -> set[str]:
    """The architectures of the library's device code of the *kind* elf or ptx."""
    cuobjdump = importlib.metadata.distribution("nvidia-cuda-cuobjdump").locate_file("nvidia/cu13/bin/cuobjdump")
    command = [str(cuobjdump), f"--list-{kind}", str(LIBRARY)]
    listing = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return set(re.findall(r"\bsm_(\w+)\.(?:cubin|ptx)$", listing, re.MULTILINE))


@pytest.mark.parametrize(
    ("library", "distribution"),
    [
        ("libcudart.so.13", "nvidia-cuda-runtime"),
        ("libcublas.so.13", "nvidia-cublas"),
        ("libcublasLt.so.13", "nvidia-cublas"),
    ],
)
def test_libraries_come_from_the_environment(loaded: dict[str, Path], library: str, distribution: str) -> None:
    installed = Path(importlib.metadata.distribution(distribution).locate_file("nvidia/cu13/lib"))
    assert loaded[library].parent == installed.resolve()


def test_device_code_is_for_the_requested_architectures() -> None:
    requested = skbuild_demo.CUDA_ARCHITECTURES.split(";")
    if not requested[0][0].isdecimal():
        pytest.skip(f"built for {requested[0]}, which names no architecture")
    assert device_code("elf") == {name.removesuffix("-real") for name in requested if not name.endswith("-virtual")}
    assert device_code("ptx") == {name.removesuffix("-virtual") for name in requested if not name.endswith("-real")}


@needs_no_gpu
def test_without_a_gpu_device_count_raises_cuda_error() -> None:
    with pytest.raises(skbuild_demo.CudaError) as caught:
        skbuild_demo.device_count()
    assert caught.value.name == NO_GPU[caught.value.code]
    assert caught.value.message
    assert str(caught.value) == f"{caught.value.name} ({caught.value.code}): {caught.value.message}"


@needs_no_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda: skbuild_demo.saxpy(2.0, floats(3), floats(3)),
        lambda: skbuild_demo.matmul(floats(2, 3), floats(3, 4)),
        lambda: skbuild_demo.sort(np.array([2, 1], np.int32)),
    ],
    ids=["saxpy", "matmul", "sort"],
)
def test_without_a_gpu_functions_raise_cuda_error(call) -> None:
    with pytest.raises(skbuild_demo.CudaError) as caught:
        call()
    assert caught.value.name == NO_GPU[caught.value.code]


def test_negative_code_is_a_cublas_status() -> None:
    assert skbuild_demo.CudaError(-1).name == "CUBLAS_STATUS_NOT_INITIALIZED"


def test_wrong_dtype_raises_type_error() -> None:
    with pytest.raises(TypeError, match="y must be an array of float32, not of float64"):
        skbuild_demo.saxpy(2.0, floats(3), np.zeros(3))
    with pytest.raises(TypeError, match="values must be an array of int32, not of int64"):
        skbuild_demo.sort(np.zeros(3, np.int64))


def test_wrong_shape_raises_value_error() -> None:
    with pytest.raises(ValueError, match=r"same shape, not \(3,\) and \(4,\)"):
        skbuild_demo.saxpy(2.0, floats(3), floats(4))
    with pytest.raises(ValueError, match=r"as many columns .* \(2, 3\) and \(2, 3\)"):
        skbuild_demo.matmul(floats(2, 3), floats(2, 3))
    with pytest.raises(ValueError, match=r"a must have 2 dimension\(s\), not 1"):
        skbuild_demo.matmul(floats(3), floats(3, 4))


def test_empty_arrays_need_no_gpu() -> None:
    assert skbuild_demo.saxpy(2.0, floats(0, 3), floats(0, 3)).shape == (0, 3)
    assert skbuild_demo.sort(np.empty(0, np.int32)).shape == (0,)
    np.testing.assert_array_equal(skbuild_demo.matmul(floats(2, 0), floats(0, 3)), np.zeros((2, 3)))


@needs_gpu
@pytest.mark.parametrize("shape", [(), (1,), (1000, 1003), (20_000_003,)], ids=str)
def test_saxpy(shape: tuple[int, ...]) -> None:
    x, y = floats(2, *shape)
    np.testing.assert_allclose(skbuild_demo.saxpy(2.5, x, y), np.float32(2.5) * x + y, rtol=1e-6)


@needs_gpu
def test_saxpy_of_strided_arrays() -> None:
    x, y = floats(100, 50).T, floats(100, 50).T
    np.testing.assert_allclose(skbuild_demo.saxpy(-1.5, x, y[:, ::-1]), np.float32(-1.5) * x + y[:, ::-1], atol=1e-6)


@needs_gpu
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 7), (301, 203, 407)])
def test_matmul(m: int, k: int, n: int) -> None:
    a, b = floats(m, k), floats(k, n)
    np.testing.assert_allclose(skbuild_demo.matmul(a, b), a @ b, rtol=1e-5)


@needs_gpu
@pytest.mark.parametrize("size", [1, 1000, 5_000_003])
def test_sort(size: int) -> None:
    values = np.random.default_rng(0).integers(-(2**31), 2**31, size, np.int32)
    np.testing.assert_array_equal(skbuild_demo.sort(values), np.sort(values))
