cdef extern from "cuda_runtime_api.h":
    int cudaRuntimeGetVersion(int *version)


def runtime():
    """The version of the CUDA runtime."""
    cdef int version = 0
    cudaRuntimeGetVersion(&version)
    return version
