#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime.h>

extern "C" int base(void);
__global__ void kernel(int *value) { *value = 1; }
extern "C" int backend(void) {
    int driver = 0, runtime = 0, cublas = 0;
    if (base() == 0)
        kernel<<<1, 1>>>(nullptr);
    cuDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cublasGetProperty(MAJOR_VERSION, &cublas);
    return cublas ? runtime : 0;
}
