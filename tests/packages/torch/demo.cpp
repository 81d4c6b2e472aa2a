#include <cuda_runtime_api.h>
#include <torch/extension.h>

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    module.def("runtime", [] {
        int version = 0;
        cudaRuntimeGetVersion(&version);
        return version;
    });
}
