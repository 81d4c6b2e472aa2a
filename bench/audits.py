"""Measure what auditing a large wheel takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from environments import run

GIGABYTE = 10**9
BLOCK = 1 << 20
INFO = "large-1.0.dist-info"
# The command, and then the peak of its memory.
MEASURED = """
import json, resource, sys
from cuda_build_activate.__main__ import main
main(["audit", "--json", sys.argv[1]])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024), file=sys.stderr)
"""


class Audit(NamedTuple):
    """One audit: the bytes of the wheel and of its libraries, the seconds, and the peak bytes of memory."""

    wheel: int
    libraries: int
    seconds: float
    memory: int


def measure(interpreter: Path, directory: Path, wheel: Path) -> Audit:
    """Audit a wheel of one gigabyte, whose libraries are half random and half zeros."""
    directory.mkdir(parents=True)
    venv = directory / "venv"
    run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", interpreter, venv)
    python = venv / "bin" / "python"
    run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, f"{wheel}[wheel]")
    large = directory / "large-1.0-py3-none-linux_x86_64.whl"
    libraries = _write(large, directory)
    started = time.perf_counter()
    done = subprocess.run([python, "-c", MEASURED, large], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode or len(json.loads(done.stdout)["wheels"][0]["files"]) != 2:
        sys.exit(done.stderr)
    return Audit(large.stat().st_size, libraries, seconds, int(done.stderr))


def described(audit: Audit) -> Iterator[str]:
    yield f"a wheel of {audit.wheel / 1e9:.2f} GB, with libraries of {audit.libraries / 1e9:.2f} GB"
    yield f"audited in {audit.seconds:.1f} s, with {audit.memory / 1e6:.0f} MB of memory"


def _write(path: Path, directory: Path) -> int:
    library = directory / "library.so"
    run("gcc", "-shared", "-x", "c", os.devnull, "-o", library)
    size = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: large\nVersion: 1.0\n")
        archive.writestr(f"{INFO}/RECORD", "")
        for name in ("one", "other"):
            with library.open("rb") as source, archive.open(f"large/{name}.so", "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
                for _ in range(GIGABYTE // BLOCK):  # the loader ignores what follows the section headers
                    target.write(os.urandom(BLOCK // 2) + bytes(BLOCK // 2))
                    size += BLOCK
    return size
