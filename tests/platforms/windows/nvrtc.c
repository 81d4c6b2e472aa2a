typedef struct program *P;
__declspec(dllimport) int nvrtcCreateProgram(P *, const char *, const char *, int, const char **, const char **);
__declspec(dllimport) int nvrtcCompileProgram(P, int, const char **);
__declspec(dllimport) int nvrtcGetPTXSize(P, unsigned long long *);
__declspec(dllimport) int nvrtcGetPTX(P, char *);
__declspec(dllimport) void *GetStdHandle(unsigned);
__declspec(dllimport) int WriteFile(void *, const char *, unsigned, unsigned *, void *);
__declspec(dllimport) void ExitProcess(unsigned);
static char ptx[1 << 16];
void start(void) {
  P program;
  unsigned long long size;
  unsigned written;
  int error = nvrtcCreateProgram(&program, "extern \"C\" __global__ void kernel(int *result) { *result = 42; }", "k.cu", 0, 0, 0);
  if (!error) error = nvrtcCompileProgram(program, 0, 0);
  if (!error) error = nvrtcGetPTXSize(program, &size);
  if (!error) error = nvrtcGetPTX(program, ptx);
  if (!error) WriteFile(GetStdHandle(-11), ptx, size - 1, &written, 0);
  ExitProcess(error);
}
