#include <Python.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

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
    {"runtime", runtime, METH_NOARGS, "The version of the CUDA runtime."},
    {"cublas", cublas, METH_NOARGS, "The major version of cuBLAS."},
    {nullptr, nullptr, 0, nullptr},
};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "demo_host", nullptr, -1, methods};
PyMODINIT_FUNC PyInit_demo_host(void) { return PyModule_Create(&module); }
