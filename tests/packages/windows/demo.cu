#include <nvrtc.h>
extern "C" __global__ void kernel(int *result) { *result = 42; }
extern "C" __declspec(dllexport) int launch() {
  kernel<<<1, 1>>>(nullptr);
  return cudaGetLastError();
}
extern "C" __declspec(dllexport) int compile(const char *source, char *ptx) {
  nvrtcProgram program;
  int error = nvrtcCreateProgram(&program, source, "k.cu", 0, nullptr, nullptr);
  if (!error) error = nvrtcCompileProgram(program, 0, nullptr);
  return error ? error : nvrtcGetPTX(program, ptx);
}
