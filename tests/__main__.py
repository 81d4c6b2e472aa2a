"""Run the tests with all that they need: ``python3 tests [--all] [PYTEST-ARGUMENT ...]``.

Without ``--all``: what needs no network, and real builds of the example by pip and by uv.
``python3 tests --diagrams`` draws the pages' diagrams for the site.
``python3 tests --lock`` renews the versions of what the tests install, in tests/locks.
``python3 tests --fleet [NAME ...]`` builds projects of others, by the package's recipes: docs/reference/fleet.md.
``python3 tests --news`` says what the index has of the toolkit that the tests, or the package, do not know.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PROJECT = TESTS.parent
ENVIRONMENT = PROJECT / ".venv"

python = ENVIRONMENT / "bin" / "python"
if not (ENVIRONMENT / "bin" / "pip").exists():
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        sys.exit("This Python has no ensurepip; on Debian and Ubuntu: apt install python3-venv")
pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
pip += ["--constraint", str(TESTS / "locks" / "environment.txt")]
subprocess.run([*pip, "pip"], check=True)  # --group is newer than many
subprocess.run([*pip, "--group", "test"], cwd=PROJECT, check=True)
subprocess.run([*pip, "--no-deps", "--no-build-isolation", "."], cwd=PROJECT, check=True)

os.chdir(PROJECT)
arguments = sys.argv[1:]
if arguments[:1] in (["--diagrams"], ["--fleet"], ["--lock"], ["--news"]):
    os.execv(python, [str(python), str(TESTS / f"{arguments[0][2:]}.py"), *arguments[1:]])
selected = [] if "--all" in arguments else ["-m", "not everything"]
free = shutil.disk_usage(PROJECT).free // 10**9
if "--all" in arguments and free < 35:
    print(f"{PROJECT} has {free} GB left; from nothing, all tests take 35 GB.", file=sys.stderr)
given = [argument for argument in arguments if argument != "--all"]
# A test at a time on each processor, and whoever is done takes over from the others. Of all tests, many wait for the
# network or the disk: then one more has the processor.
processes = len(os.sched_getaffinity(0)) + ("--all" in arguments)
options = [f"--numprocesses={processes}", "--dist=worksteal", *selected]
os.execv(python, [str(python), "-m", "pytest", *options, *given])
