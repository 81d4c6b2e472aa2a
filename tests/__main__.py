"""Run the tests with all that they need: ``python3 tests [PYTEST-ARGUMENT ...]``."""

import os
import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = PROJECT / ".venv"

python = ENVIRONMENT / "bin" / "python"
if not (ENVIRONMENT / "bin" / "pip").exists():
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        sys.exit("This Python has no ensurepip; on Debian and Ubuntu: apt install python3-venv")
pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
subprocess.run([*pip, "--upgrade", "pip>=25.1"], cwd=PROJECT, check=True)  # the first with --group
subprocess.run([*pip, "--group", "test", "."], cwd=PROJECT, check=True)
os.chdir(PROJECT)
os.execv(python, [str(python), "-m", "pytest", *sys.argv[1:]])
