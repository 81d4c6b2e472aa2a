#include <cublas_v2.h>
#include <curand.h>
#include <nccl.h>

__global__ void twice(float *x) { x[threadIdx.x] *= 2; }

extern "C" void call(float *x) { twice<<<1, 1>>>(x); }

// What works without a GPU.
extern "C" int versions(int *version)
{
    bool failed = cublasGetProperty(MAJOR_VERSION, &version[0]) != CUBLAS_STATUS_SUCCESS;
    failed |= curandGetVersion(&version[1]) != CURAND_STATUS_SUCCESS;
    failed |= ncclGetVersion(&version[2]) != ncclSuccess;
    failed |= cudaRuntimeGetVersion(&version[3]) != cudaSuccess;
    return failed;
}
