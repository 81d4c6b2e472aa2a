"""Compare every function's result with NumPy's, or say that there is no GPU here."""

import numpy as np

import skbuild_demo

NO_GPU = (35, 100)  # cudaErrorInsufficientDriver, also reported without a driver; cudaErrorNoDevice


def main() -> None:
    print(f"built with nvcc {skbuild_demo.NVCC_VERSION} for {skbuild_demo.CUDA_ARCHITECTURES}")
    try:
        print(f"{skbuild_demo.device_count()} CUDA device(s)")
    except skbuild_demo.CudaError as error:
        if error.code not in NO_GPU:
            raise
        print(f"no GPU here: CUDA reports {error}")
        return
    random = np.random.default_rng(0)
    x, y = random.random((2, 1_000_003), np.float32)
    a, b = random.random((301, 203), np.float32), random.random((203, 407), np.float32)
    values = random.integers(-(2**31), 2**31, 1_000_003, np.int32)
    for name, result, expected, tolerance in (
        ("saxpy", skbuild_demo.saxpy(2.5, x, y), np.float32(2.5) * x + y, 1e-6),
        ("matmul", skbuild_demo.matmul(a, b), a @ b, 1e-5),
        ("sort", skbuild_demo.sort(values), np.sort(values), 0),
    ):
        np.testing.assert_allclose(result, expected, rtol=tolerance)
        print(f"{name}: as NumPy")


if __name__ == "__main__":
    main()
