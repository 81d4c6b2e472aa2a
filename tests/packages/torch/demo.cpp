#include <torch/csrc/utils/pybind.h> // torch/extension.h has it, and takes a minute to compile

at::Tensor twice(const at::Tensor &input);

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("twice", &twice); }
