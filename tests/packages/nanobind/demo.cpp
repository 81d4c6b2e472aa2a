#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <nanobind/nanobind.h>

NB_MODULE(demo, module) {
    module.def("runtime", [] {
        int version = 0;
        cudaRuntimeGetVersion(&version);
        return version;
    });
    module.def("cublas", [] {
        int major = 0;
        cublasGetProperty(MAJOR_VERSION, &major);
        return major;
    });
}
