#include "host.cpp"

__global__ void kernel(int *value) { *value = 1; }
extern "C" void start(void) { kernel<<<1, 1>>>(nullptr); }
