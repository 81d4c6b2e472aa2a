// cl.exe and link.exe: clang and lld, called with COMMAND and the options in the variable OPTIONS.
typedef void *H; typedef unsigned D;
typedef struct { D cb; char *a, *b, *c; D x[8]; unsigned short w, y; void *z; H in, out, err; } STARTUP;
typedef struct { H process, thread; D pid, tid; } PROCESS;
__declspec(dllimport) char *GetCommandLineA(void);
__declspec(dllimport) D GetEnvironmentVariableA(const char *, char *, D);
__declspec(dllimport) int CreateProcessA(const char *, char *, void *, void *, int, D, void *, const char *, STARTUP *, PROCESS *);
__declspec(dllimport) D WaitForSingleObject(H, D);
__declspec(dllimport) int GetExitCodeProcess(H, D *);
__declspec(dllimport) char *lstrcatA(char *, const char *);
static char program[1024], options[4096], line[1 << 15];
static char *split(char *words) { // and return what follows the first
  for (int quoted = 0; *words && (quoted || *words != ' '); words++) quoted ^= *words == '"';
  while (*words == ' ') *words++ = 0;
  return words;
}
int main(void) {
  char *first = split(GetCommandLineA());
  // For nvcc, which gives `@file -Fe"name"`: clang takes all that follows -link for the linker's, which is in the file.
  char *rest = *first == '@' ? split(first) : "";
  GetEnvironmentVariableA("ZIG", program, sizeof program);
  GetEnvironmentVariableA(OPTIONS, options, sizeof options);
  char *parts[] = {"\"", program, "\" ", COMMAND, " ", options, " ", rest, " ", first};
  for (int i = 0; i < sizeof parts / sizeof *parts; i++) lstrcatA(line, parts[i]);
  STARTUP startup = {sizeof startup};
  PROCESS made;
  D code = 1;
  if (CreateProcessA(program, line, 0, 0, 1, 0, 0, 0, &startup, &made)) {
    WaitForSingleObject(made.process, -1);
    GetExitCodeProcess(made.process, &code);
  }
  return code;
}
