"""Keep the machine out of the tests: they see what the README asks for, and nothing else that happens to be there.

A build tool, a configuration file or a variable of the machine's can make a build work that fails elsewhere, or the
other way round. So the process that runs the tests, and all that it starts, gets an environment of its own. The machine
has a say only where something is fetched: from which index, by which certificates, through which proxy.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

# What a minimal Linux has, with git and a C++ compiler.
PROGRAMS = """
[ arch awk b2sum base64 basename bash bunzip2 bzip2 cat chgrp chmod chown cmp comm cp cut date dd df diff dir dirname du
echo egrep env expand expr false fgrep find flock fmt fold gawk getconf getent grep groups gunzip gzip head hostname id
install join kill ldconfig ldd ln logname ls mawk md5sum mkdir mkfifo mknod mktemp more mv nice nl nohup nproc numfmt od
paste pathchk perl pr printenv printf ps pwd readlink realpath rev rm rmdir sed seq sh sha1sum sha256sum sha512sum shuf
sleep sort split stat stdbuf stty sum sync tac tail tar tee test timeout touch tr true truncate tsort tty uname unexpand
uniq unlink users wc which who whoami xargs xz yes
git
addr2line ar as c++ c++filt cc cpp elfedit g++ gcc gcc-ar gcc-nm gcc-ranlib gcov ld ld.bfd ld.gold nm objcopy objdump
ranlib readelf size strings strip
x86_64-linux-gnu-gcc x86_64-linux-gnu-g++ x86_64-linux-gnu-gcc-ar x86_64-linux-gnu-ar aarch64-linux-gnu-g++
"""
# What single tests skip without, and say so.
OPTIONAL = """
mount umount unshare setpriv su
ccache redis-server
fish zsh strace valgrind callgrind_annotate node npm pypy3
fusefat lowntfs-3g mkfs.vfat mkntfs ntfs-3g
wine wineserver
ld.lld ld.mold mold qemu-aarch64 aarch64-linux-gnu-gcc aarch64-linux-gnu-ld.bfd aarch64-linux-gnu-ld.gold
chroot mmdebstrap qemu-aarch64-static llvm-readobj
"""
# How the tests are run, and where they may write.
KEPT = ("CI", "COLUMNS", "SEEDS", "TERM", "TMPDIR")
KEPT_GROUPS = ("COVERAGE_", "MUTANT_", "PYTEST_")


def isolate() -> dict[str, str]:
    """Take everything of the machine's out of `os.environ`, and return what it was.

    Raises RuntimeError if the machine lacks what the README asks for.
    """
    machine = dict(os.environ)
    if "PYTEST_XDIST_WORKER" in machine:  # the process that started this one has done so
        return machine
    directory = Path(tempfile.mkdtemp(prefix="tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    directory.chmod(0o755)  # tests start programs as other users
    programs, home = directory / "bin", directory / "home"
    programs.mkdir()
    home.mkdir()
    path = machine.get("PATH", os.defpath).split(os.pathsep)
    for name in [*PROGRAMS.split(), *OPTIONAL.split(), *_python_compilers()]:
        found = _which(name, path)
        if found and not (programs / name).exists():
            _link(programs / name, found)
    (programs / "python3").symlink_to(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    missing = [name for name in ("sh", "git", "gcc", "g++", "readelf") if not (programs / name).exists()]
    if missing:
        raise RuntimeError(f"the tests need {', '.join(missing)}: see the README")
    os.environ.clear()
    os.environ.update(
        {name: value for name, value in machine.items() if name in KEPT or name.startswith(KEPT_GROUPS)},
        PATH=str(programs),
        HOME=str(home),
        LANG="C.UTF-8",
        GIT_CONFIG_NOSYSTEM="1",
        PIP_CONFIG_FILE=os.devnull,
        UV_NO_CONFIG="1",
        # The tests' environments lie in a directory for temporary files, and most stand for ones that stay.
        CUDA_BUILD_ACTIVATE_STABLE_PATH="off",
    )
    return machine


def _link(link: Path, program: str) -> None:
    with open(program, "rb") as file:
        is_script = file.read(2) == b"#!"
    if is_script:  # it may look beside itself for more, as valgrind's does
        link.write_text(f'#!/bin/sh\nexec {shlex.quote(program)} "$@"\n')
        link.chmod(0o755)
    else:
        link.symlink_to(program)


def _python_compilers() -> list[str]:
    """What this Python calls its compiler and linker: Debian's have a prefix."""
    commands = [sysconfig.get_config_var(name) or "" for name in ("CC", "CXX", "LDSHARED", "AR")]
    return [shlex.split(command)[0] for command in commands if command and "/" not in shlex.split(command)[0]]


def _which(name: str, path: list[str]) -> str | None:
    """Where *name* is on *path*, unless that is a compile cache in its place."""
    for directory in path:
        found = shutil.which(name, path=directory) if os.path.isabs(directory) else None
        if found and (name == "ccache" or "ccache" not in os.path.realpath(found)):
            return found
    return None


# /usr/local without what NVIDIA's installer puts there; all else is as it was.
HIDE = """
there=$(mktemp -d)
mount --rbind /usr/local "$there"
mount -t tmpfs -o mode=755 none /usr/local
for path in "$there"/*; do
    place=/usr/local/${path##*/}
    case $place in /usr/local/cuda*) continue ;; esac
    if [ -L "$path" ]; then cp -P "$path" "$place"
    elif [ -d "$path" ]; then mkdir "$place"; mount --rbind "$path" "$place"
    else touch "$place"; mount --bind "$path" "$place"
    fi
done
umount -l "$there"
rmdir "$there"
if [ -e /usr/local/bin/nvcc ]; then mount --bind /dev/null /usr/local/bin/nvcc; fi
exec "$@"
"""


def without_cuda() -> list[str]:
    """The start of a command line for a process that sees no CUDA where a machine has its own.

    Raises PermissionError if there is one, and hiding it is not allowed.
    """
    if not any(os.path.exists(path) for path in ("/usr/local/cuda", "/usr/local/bin/nvcc")):
        return []
    if os.geteuid() != 0:
        raise PermissionError("hiding /usr/local/cuda needs root")
    return ["unshare", "-m", "sh", "-ec", HIDE, "sh"]
