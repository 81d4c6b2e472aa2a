"""Mutation testing of finding, deciding and making the root: ``python3 tests/mutants.py``.

Runs mutmut on a copy, with the quick tests of these five modules, and compares the mutants that survive with those that
mutants.txt explains. Exit status 0: they are the same.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
COPY = PROJECT / "build" / "mutants"
# The package is not installed there: mutmut lets the tests import its mutants.
ENVIRONMENT = PROJECT / "build" / "mutants-venv"
NEEDED = ["coverage", "filelock", "mutmut", "pytest"]


def explained() -> set[str]:
    """The mutants that may survive: each paragraph has the reason, and below it the mutants that it is for."""
    found: set[str] = set()
    for paragraph in (PROJECT / "tests" / "mutants.txt").read_text().strip().split("\n\n"):
        reason, *mutants = paragraph.splitlines()
        if not reason.startswith("# "):
            sys.exit(f"no reason: {reason}")
        found.update(mutants)
    return found


def mutmut(*arguments: str) -> str:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  # files by the hundred thousand
    command = [str(ENVIRONMENT / "bin" / "mutmut"), *arguments]
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        environ = {**os.environ, "SEEDS": "10", "TMPDIR": directory}
        return subprocess.run(command, cwd=COPY, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout


def describe(mutant: str) -> str:
    """The function, and what is changed in it."""
    function = re.sub(r"^x_?(?:ǁ(\w+)ǁ)?(\w+?)__mutmut_\d+$", r"\1.\2", mutant.rpartition(".")[2]).lstrip(".")
    lines = mutmut("show", mutant).splitlines()
    old, new = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign) and not line.startswith(3 * sign))
        for sign in "-+"
    )
    return f"{function}: {old} -> {new}"


def main() -> int:
    if not (ENVIRONMENT / "bin" / "mutmut").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        locks = [f"--constraint={PROJECT}/tests/locks/{name}.txt" for name in ("environment", "development")]
        subprocess.run([*pip, "install", *locks, *NEEDED], check=True)
    shutil.rmtree(COPY, ignore_errors=True)
    ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "packages")
    shutil.copytree(PROJECT, COPY, ignore=ignored)
    mutmut("run", "--max-children", str(os.cpu_count()))
    outcomes = dict(re.findall(r"^\s*(\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE))
    alive = {describe(mutant) for mutant, outcome in outcomes.items() if outcome not in ("killed", "timeout")}
    known = explained()
    print(f"{len(outcomes)} mutants, {len(outcomes) - len(alive)} killed, {len(alive & known)} explained")
    for title, mutants in (("survives", alive - known), ("explained, and is not there or is killed", known - alive)):
        for mutant in sorted(mutants):
            print(f"{title}: {mutant}")
    return 0 if outcomes and alive == known else 1


if __name__ == "__main__":
    sys.exit(main())
