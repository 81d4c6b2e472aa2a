#include <Python.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>

__global__ void twice(float *values) { values[threadIdx.x] *= 2; }

static PyObject *run(PyObject *, PyObject *) {
    float *values = nullptr;
    cudaError_t error = cudaMalloc(&values, 32 * sizeof(float));
    if (error == cudaSuccess) {
        twice<<<1, 32>>>(values);
        error = cudaDeviceSynchronize();
        cudaFree(values);
    }
    return PyUnicode_FromString(cudaGetErrorName(error));
}

static PyObject *runtime(PyObject *, PyObject *) {
    int version = 0;
    cudaRuntimeGetVersion(&version);
    return PyLong_FromLong(version);
}

static PyObject *cublas(PyObject *, PyObject *) {
    int major = 0;
    cublasGetProperty(MAJOR_VERSION, &major);
    return PyLong_FromLong(major);
}

static PyMethodDef methods[] = {
    {"run", run, METH_NOARGS, "The name of the error, or of the success, of a kernel."},
    {"runtime", runtime, METH_NOARGS, "The version of the CUDA runtime."},
    {"cublas", cublas, METH_NOARGS, "The major version of cuBLAS."},
    {nullptr, nullptr, 0, nullptr},
};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_demo", nullptr, -1, methods};
PyMODINIT_FUNC PyInit__demo(void) { return PyModule_Create(&module); }
