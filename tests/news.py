"""Say what the index has of the toolkit that the tests, or the package, do not know: ``python3 tests --news``.

A new release is surveyed, with the newest products, as test_layout.py surveys the known ones. Exit status 0: there is
nothing to do. 1: there is, and the output says what goes where.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from lock import resolve
from toolkits import LOCKS, MORE_PRODUCTS, NEWEST, PRODUCTS, RELEASES, TORCH, number, release_lock

TESTS = LOCKS.parent
SURVEY = ["tests/root/test_layout.py", "-k", "every_file or test_windows"]


def versions(project: str) -> list[str]:
    """The versions that the index has of *project*, oldest first. Ends the program if it has none."""
    command = [sys.executable, "-m", "pip", "index", "versions", project, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    found = re.search(r"^\{.*\}$", done.stdout, re.MULTILINE)
    if not found:
        sys.exit(f"The index has no {project}.")
    released = [version for version in json.loads(found[0])["versions"] if version.replace(".", "").isdecimal()]
    return sorted(released, key=number)


def locked(project: str) -> str:
    (version,) = re.findall(rf"^{project}==(\S+)$", release_lock(NEWEST).read_text(), re.MULTILINE)
    return str(version)


def main() -> int:
    """Print what is new, and return the exit status."""
    releases = [version for version in versions("cuda-toolkit") if number(version) > number(RELEASES[0])]
    new = [release for release in releases if release not in RELEASES]
    newest = {product: versions(product)[-1] for product in (*PRODUCTS, *MORE_PRODUCTS)}
    newer = [product for product, version in newest.items() if version != locked(product)]
    torches = [version for version in versions("torch") if number(version) > number([*TORCH][-1])]
    for release in new:
        print(f"New: cuda-toolkit {release}")
    for product in newer:
        print(f"New: {product} {newest[product]}, where the tests have {locked(product)}")
    pinned = []
    for version in torches:
        found = resolve([f"torch=={version}"], python="3.13")
        (toolkit,) = [line.partition("==")[2] for line in found if line.startswith("cuda-toolkit==")] or ["none"]
        print(f"New: torch {version}, which requires cuda-toolkit {toolkit}")
        pinned.append(f'"{version}": "{toolkit}"')
    if not (new or newer or torches):
        print("Nothing is new.")
        return 0
    unlocked = [f"--unlocked={release}" for release in new or [NEWEST]]
    command = [sys.executable, "-m", "pytest", "--quiet", "--no-header", "--tb=short", *SURVEY, *unlocked]
    fits = subprocess.run(command, cwd=TESTS.parent, env=os.environ, check=False).returncode == 0
    steps = []
    if not fits:
        steps.append(
            "The survey above names what has no place in the root. If a build needs it, add a row to LAYOUT\n"
            "   (src/cuda_build_activate/_assemble.py), COMPONENTS or PRODUCTS (_toolkit.py), and to PLACES or\n"
            "   WINDOWS_PLACES in tests/root/test_layout.py. If no build does, add a row to NOT_NEEDED there."
        )
    if pinned:
        steps.append(
            f"Add {', '.join(pinned)} to TORCH in tests/toolkits.py, and that PyTorch to docs/how-to/torch.md."
        )
    if new:
        names = ", ".join(f'"{release}"' for release in new)
        steps.append(f"Add {names} to RELEASES in tests/toolkits.py, in their order.")
    steps.append("Run python3 tests --lock, python3 tests --all, and commit what has changed in tests/locks.")
    print("\nTo do:", *(f"{place}. {step}" for place, step in enumerate(steps, 1)), sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
