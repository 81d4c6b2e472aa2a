// What Microsoft links statically into every program and DLL, and the CUDA runtime needs; the rest is in Wine's DLLs.
__declspec(dllimport) void exit(int);
__declspec(dllimport) int _crt_atexit(void (*)(void));
__declspec(dllimport) void *__acrt_iob_func(unsigned);
__declspec(dllimport) int __stdio_common_vfprintf(unsigned long long, void *, const char *, void *, __builtin_va_list);
int main(int, char **);
int nothing(void) { return 0; }
#pragma comment(linker, "/alternatename:main=nothing") // in a DLL
char *arguments[] = {"program", 0};
void mainCRTStartup(void) { exit(main(1, arguments)); }
int _DllMainCRTStartup(void *library, unsigned reason, void *reserved) { return 1; }
int _fltused, _Init_thread_epoch;
unsigned _tls_index;
unsigned long long __security_cookie;
void __security_check_cookie(unsigned long long cookie) {}
int __GSHandlerCheck(void) { return 1; }
void _Init_thread_header(int *state) { if (!*state) *state = -1; }
void _Init_thread_footer(int *state) { *state = 1; }
__attribute__((naked)) void dispatch(void) { __asm__("jmp *%rax"); }
void (*__guard_dispatch_icall_fptr)(void) = dispatch;
int atexit(void (*function)(void)) { return _crt_atexit(function); }
int fprintf(void *file, const char *format, ...) {
  __builtin_va_list values;
  __builtin_va_start(values, format);
  return __stdio_common_vfprintf(0, file, format, 0, values);
}
int printf(const char *format, ...) {
  __builtin_va_list values;
  __builtin_va_start(values, format);
  return __stdio_common_vfprintf(0, __acrt_iob_func(1), format, 0, values);
}
