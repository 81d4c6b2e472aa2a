"""Build the example project in isolation with this checkout, and show the result: ``python3 examples``.

Needs Python with its venv module, and a C++ compiler. Needs no installed CUDA toolkit, and no GPU.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "example"
VENV = OUT / "venv"
WHEELS = OUT / "wheels"
PYTHON = VENV / "bin" / "python"
LOADED = "import skbuild_demo; print(open('/proc/self/maps').read())"


def run(name: str, *command: "str | Path") -> str:
    """Run *command*, log its output under *name*, and return it; exit if the command fails."""
    environ = {**os.environ, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}
    environ.pop("LD_LIBRARY_PATH", None)  # it would take precedence over the RUNPATH of the example's library
    start = time.monotonic()
    log = OUT / f"{name}.log"
    with log.open("wb") as file:
        code = subprocess.run(command, cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT).returncode
    output = log.read_text(errors="replace")
    print(f"{name:10} {time.monotonic() - start:6.1f} s", flush=True)
    if code:
        lines = output.splitlines()
        decisions = dict.fromkeys(line.strip() for line in lines if "cuda-build-activate: " in line)
        tail = "\n".join([*lines[-30:], "", *decisions])
        sys.exit(f"{tail}\nfailed with status {code}: {shlex.join(map(str, command))}\nfull output: {log}")
    return output


def show(title: str, lines: "list[str]") -> None:
    print(f"\n{title}")
    for line in dict.fromkeys(lines):
        print(f"  {line}")


def main() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("This Python lacks ensurepip, which venv needs. On Debian and Ubuntu: apt install python3-venv")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check")
    run("venv", sys.executable, "-m", "venv", VENV)
    run("pip", *pip, "install", "--upgrade", "pip")
    run("wheel", *pip, "wheel", "--no-deps", "-w", WHEELS, ".")
    # The option adds to the directories in PIP_FIND_LINKS.
    log = run("build", *pip, "wheel", "--no-deps", "-v", "--find-links", WHEELS, "-w", OUT, "examples/skbuild")
    used = re.findall(r"^ *(?:-- skbuild-demo|cuda-build-activate): (.*)", log, re.MULTILINE)
    paths = [line.partition(" = ")[2] for line in used if " = " in line]
    # The path by which the build sees the root, and where it really is.
    root, own = re.search(r"with nvcc: (\S+)(?: -> (\S+))?$", "\n".join(used), re.MULTILINE).groups()
    if not paths or not all(path.startswith(root) for path in paths) or "/pip-build-env-" not in (own or root):
        show("The toolkit of the build:", used)
        sys.exit("\nThe build used another toolkit than that of its isolated environment, or both.")
    (example,) = OUT.glob("skbuild_demo-*.whl")
    run("install", *pip, "install", example, "cuda-toolkit[cuobjdump]==13.*")
    (library,) = VENV.glob("lib/python*/site-packages/skbuild_demo/libskbuild_demo.so")
    cuobjdump = library.parents[1] / "nvidia" / "cu13" / "bin" / "cuobjdump"
    dynamic = run("readelf", "readelf", "-d", library)
    maps = run("load", PYTHON, "-c", LOADED)
    listing = run("cuobjdump", cuobjdump, "--list-elf", library)
    demo = run("demo", PYTHON, "-m", "skbuild_demo")

    loaded = re.findall(r"/.*/lib(?:skbuild|cudart|cublas).*", maps)
    show("The toolkit of the build:", used)
    show(f"{example.name} needs:", re.findall(r"\((?:NEEDED|RUNPATH)\) +(.*)", dynamic))
    show("It loaded:", loaded)
    show("Its device code:", listing.splitlines())
    show("python -m skbuild_demo:", demo.splitlines())
    if not all(path.startswith(f"{VENV}/") for path in loaded):
        sys.exit("\nIt loaded libraries from outside its environment.")


if __name__ == "__main__":
    main()
