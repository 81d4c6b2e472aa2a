#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <curand.h>
#include <nccl.h>

// The version of the CUDA runtime, if all of these libraries answer.
extern "C" int probe(void) {
    int runtime = 0, cublas = 0, curand = 0, nccl = 0;
    cudaRuntimeGetVersion(&runtime);
    cublasGetProperty(MAJOR_VERSION, &cublas);
    curandGetVersion(&curand);
    ncclGetVersion(&nccl);
    return cublas && curand && nccl ? runtime : 0;
}
