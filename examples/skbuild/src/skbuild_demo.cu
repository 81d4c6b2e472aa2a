// The C API behind skbuild_demo/__init__.py. All arrays are in host memory, all matrices in row-major order.
// Every function returns 0, a cudaError_t, or a negated cublasStatus_t.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <cub/device/device_radix_sort.cuh>
#include <cublas_v2.h>
#include <cuda_runtime.h>

#ifdef _WIN32
#define API extern "C" __declspec(dllexport)
#else
#define API extern "C" __attribute__((visibility("default")))
#endif

#define TRY(call)                           \
  do {                                      \
    if (const int code_ = code_of(call)) {  \
      return code_;                         \
    }                                       \
  } while (false)

namespace {

int code_of(cudaError_t error) {
  if (error != cudaSuccess) {
    cudaGetLastError();  // clear the error, or the check after the next kernel launch would report it
  }
  return error;
}

int code_of(cublasStatus_t status) { return -static_cast<int>(status); }

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t size) : bytes_(static_cast<size_t>(size) * sizeof(T)) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() {
    if (data_ != nullptr) {
      cudaFree(data_);
    }
  }

  cudaError_t allocate() { return cudaMalloc(&data_, bytes_); }

  cudaError_t load(const T* host) {
    const cudaError_t error = allocate();
    return error != cudaSuccess ? error : cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice);
  }

  cudaError_t store(T* host) const { return cudaMemcpy(host, data_, bytes_, cudaMemcpyDeviceToHost); }

  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  size_t bytes_;
};

class Cublas {
 public:
  Cublas() = default;
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;
  ~Cublas() {
    if (handle_ != nullptr) {
      cublasDestroy(handle_);
    }
  }

  cublasStatus_t create() { return cublasCreate(&handle_); }
  cublasHandle_t handle() const { return handle_; }

 private:
  cublasHandle_t handle_ = nullptr;
};

__global__ void saxpy_kernel(float a, const float* x, const float* y, float* out, int64_t n) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
    out[i] = a * x[i] + y[i];
  }
}

}  // namespace

API int skbuild_demo_device_count(int* count) {
  TRY(cudaGetDeviceCount(count));
  return 0;
}

API int skbuild_demo_describe(int code, const char** name, const char** message) {
  if (code < 0) {
    *name = cublasGetStatusName(static_cast<cublasStatus_t>(-code));
    *message = cublasGetStatusString(static_cast<cublasStatus_t>(-code));
  } else {
    *name = cudaGetErrorName(static_cast<cudaError_t>(code));
    *message = cudaGetErrorString(static_cast<cudaError_t>(code));
  }
  return 0;
}

API int skbuild_demo_saxpy(float a, const float* x, const float* y, float* out, int64_t n) {
  constexpr int64_t threads = 256, max_blocks = 65536;
  DeviceArray<float> device_x(n), device_y(n), device_out(n);
  TRY(device_x.load(x));
  TRY(device_y.load(y));
  TRY(device_out.allocate());
  const auto blocks = static_cast<unsigned>(std::min((n + threads - 1) / threads, max_blocks));
  saxpy_kernel<<<blocks, threads>>>(a, device_x.data(), device_y.data(), device_out.data(), n);
  TRY(cudaGetLastError());
  TRY(device_out.store(out));
  return 0;
}

API int skbuild_demo_matmul(const float* a, const float* b, float* out, int64_t m, int64_t k, int64_t n) {
  const float one = 1.0F, zero = 0.0F;
  DeviceArray<float> device_a(m * k), device_b(k * n), device_out(m * n);
  TRY(device_a.load(a));
  TRY(device_b.load(b));
  TRY(device_out.allocate());
  Cublas cublas;
  TRY(cublas.create());
  // cuBLAS stores matrices by column, so it sees their transposes: it computes (ab)' = b'a'.
  TRY(cublasSgemm_64(cublas.handle(), CUBLAS_OP_N, CUBLAS_OP_N, n, m, k, &one, device_b.data(), n, device_a.data(), k,
                     &zero, device_out.data(), n));
  TRY(device_out.store(out));
  return 0;
}

API int skbuild_demo_sort(const int32_t* values, int32_t* out, int64_t n) {
  DeviceArray<int32_t> device_values(n), device_out(n);
  TRY(device_values.load(values));
  TRY(device_out.allocate());
  size_t bytes = 0;
  TRY(cub::DeviceRadixSort::SortKeys(nullptr, bytes, device_values.data(), device_out.data(), n));
  DeviceArray<std::byte> scratch(static_cast<int64_t>(bytes));
  TRY(scratch.allocate());
  TRY(cub::DeviceRadixSort::SortKeys(scratch.data(), bytes, device_values.data(), device_out.data(), n));
  TRY(device_out.store(out));
  return 0;
}
