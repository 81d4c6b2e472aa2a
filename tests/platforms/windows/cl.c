typedef void *H; typedef unsigned D;
typedef struct { D cb; char *a, *b, *c; D x[8]; unsigned short w, y; void *z; H in, out, err; } STARTUP;
typedef struct { H process, thread; D pid, tid; } PROCESS;
__declspec(dllimport) char *GetCommandLineA(void);
__declspec(dllimport) D GetEnvironmentVariableA(const char *, char *, D);
__declspec(dllimport) int CreateProcessA(const char *, char *, void *, void *, int, D, void *, const char *, STARTUP *, PROCESS *);
__declspec(dllimport) D WaitForSingleObject(H, D);
__declspec(dllimport) int GetExitCodeProcess(H, D *);
__declspec(dllimport) void ExitProcess(D);
__declspec(dllimport) char *lstrcatA(char *, const char *);
static char program[1024], options[4096], line[1 << 15];
void start(void) {
  char *rest = GetCommandLineA();
  char end = *rest == '"' ? '"' : ' ';
  for (rest++; *rest && *rest != end; rest++) {}
  if (*rest) rest++;
  GetEnvironmentVariableA("CL_ZIG", program, sizeof program);
  GetEnvironmentVariableA("CL_OPTIONS", options, sizeof options);
  lstrcatA(line, "\""); lstrcatA(line, program); lstrcatA(line, "\" clang --driver-mode=cl ");
  lstrcatA(line, options); lstrcatA(line, " "); lstrcatA(line, rest);
  STARTUP startup = {sizeof startup};
  PROCESS made;
  D code = 1;
  if (CreateProcessA(program, line, 0, 0, 1, 0, 0, 0, &startup, &made)) {
    WaitForSingleObject(made.process, -1);
    GetExitCodeProcess(made.process, &code);
  }
  ExitProcess(code);
}
