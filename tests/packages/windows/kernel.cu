extern "C" __global__ void kernel(int *result) { *result = 42; }
