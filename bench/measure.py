"""Start an interpreter, and measure what that costs."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ENVIRON = "import json, os; print(json.dumps(dict(os.environ)))"
SYSTEM_PATH = os.pathsep.join(path for path in ("/usr/bin", "/bin") if not Path(path, "nvcc").exists())

# All variables that a measured interpreter sees: the machine's own would change the counts.
VARIABLES = {
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "PATH": SYSTEM_PATH,
    "PYTHONDONTWRITEBYTECODE": "1",  # the benchmark decides whether there is byte code
    "PYTHONHASHSEED": "0",  # makes the instruction count repeatable
}


class Cost(NamedTuple):
    instructions: int
    system_calls: int


class Start(NamedTuple):
    """A way to start an interpreter; *before* is called before each start."""

    python: Path
    variables: Mapping[str, str] = VARIABLES
    code: str = "pass"
    before: Callable[[], object] | None = None

    @property
    def command(self) -> list[str]:
        return [str(self.python), "-c", self.code]

    def environ(self) -> dict[str, str]:
        """The environment variables that the started process sees."""
        self._prepare()
        seen: dict[str, str] = json.loads(_run([*self.command[:2], ENVIRON], self.variables).stdout)
        return seen

    def instructions(self) -> int:
        self._prepare()
        callgrind = [tool("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        said = _run([*callgrind, *self.command], self.variables).stderr
        (collected,) = re.findall(r"^==\d+== Collected : (\d+)$", said, re.M)
        return int(collected)

    def system_calls(self) -> int:
        self._prepare()
        with tempfile.NamedTemporaryFile() as log:
            _run([tool("strace"), "-f", "-qq", "-o", log.name, *self.command], self.variables)
            return len(log.readlines())

    def cost(self) -> Cost:
        return Cost(self.instructions(), self.system_calls())

    def over(self, bare: Path) -> Cost:
        """What this costs over a start of the interpreter *bare* with the same variables."""
        cost, base = self.cost(), _bare_cost(bare, tuple(self.variables.items()))
        return Cost(cost.instructions - base.instructions, cost.system_calls - base.system_calls)

    def milliseconds(self) -> float:
        self._prepare()
        started = time.perf_counter()
        _, status = os.waitpid(os.posix_spawn(self.python, self.command, self.variables), 0)
        elapsed = time.perf_counter() - started
        if status:
            sys.exit(f"failed with status {status}: {self.command}")
        return elapsed * 1000

    def _prepare(self) -> None:
        if self.before:
            self.before()


def medians(starts: Mapping[str, Start], rounds: int = 50) -> dict[str, float]:
    """The median time of each of *starts* in milliseconds, measured in turns, so that all see the same noise."""
    times: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            times[name].append(start.milliseconds())
    return {name: statistics.median(values) for name, values in times.items()}


def tool(name: str) -> str:
    """The path of the program *name*; exits if it is missing."""
    path = shutil.which(name)
    if path is None:
        sys.stderr.write(f"The benchmark needs {name}, which is missing. On Debian and Ubuntu: apt install {name}\n")
        sys.exit(2)
    return path


@functools.cache
def _bare_cost(python: Path, variables: tuple[tuple[str, str], ...]) -> Cost:
    return Start(python, dict(variables)).cost()


def _run(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nfailed with status {done.returncode}: {command}")
    return done
