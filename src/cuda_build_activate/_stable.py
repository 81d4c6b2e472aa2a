"""Stable paths: temporary environments see the same toolkit at the same path, so that compile caches hit.

An isolated build environment has a random path. Its root gets another one, ``<base>/<toolkit>/<slot>``: a link to it,
through which all tools see the toolkit. *base* is private to the user. *toolkit* depends on what is installed. A *slot*
becomes free when the environment that it leads to is gone. So consecutive builds with the same components see their
toolkit at the same path, and concurrent ones never share a path.
"""

import os
import time

from cuda_build_activate import STAMP
from cuda_build_activate._toolkit import Toolkit, fingerprint, versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

_PATIENCE_S = 1.0
_COMPILER = "bin/nvcc"


def claim(root: str, toolkit: Toolkit, base: str) -> str:
    """Make a path below *base*, a private directory, lead to *root*, and return it. Raises OSError."""
    installed = "\0".join(f"{name} {version}" for name, version in sorted(versions(toolkit.entries).items()))
    directory = os.path.join(base, fingerprint([installed])[-7:])
    lock = _lock(os.path.join(base, ".lock"))
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        path = _free(directory, f"cu{toolkit.major}", root)
        if not _leads_to(path, root):
            if os.path.islink(path):
                os.unlink(path)
            os.symlink(root, path)
            _sweep(base, directory)
    finally:
        os.close(lock)
    _settle(root, toolkit)
    _remember(root, path)
    return path


def _free(directory: str, name: str, root: str) -> str:
    """The path in *directory* that leads to *root* already, or else the first that leads to no existing root."""
    free, number = "", 0
    while True:
        path = os.path.join(directory, f"{name}.{number}" if number else name)
        if _leads_to(path, root):
            return path
        if not free and not os.path.exists(path):
            free = path
        if not os.path.lexists(path):
            return free or path
        number += 1


def _leads_to(path: str, root: str) -> bool:
    return os.path.islink(path) and os.readlink(path) == root


def _lock(path: str) -> int:
    """Lock *path* and return its file descriptor; closing that unlocks it. Raises OSError."""
    import fcntl  # not on Windows

    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() > until:
                os.close(lock)
                raise OSError(f"{path} cannot be locked: {error.strerror}") from error
        time.sleep(0.005)


def _sweep(base: str, used: str) -> None:
    """Remove links that lead nowhere, and then empty directories."""
    for name in os.listdir(base):
        directory = os.path.join(base, name)
        if directory != used and os.path.isdir(directory):
            for link in os.listdir(directory):
                path = os.path.join(directory, link)
                if not os.path.exists(path):
                    os.unlink(path)
            try:
                os.rmdir(directory)
            except OSError:
                pass


def _settle(root: str, toolkit: Toolkit) -> None:
    """Replace the link to nvcc with a copy whose modification time depends only on its content. Raises OSError.

    Compile caches compare the compiler's time and size, and pip gives each file the time of its installation.
    """
    compiler = os.path.join(root, _COMPILER)
    changed = _time_of_compiler(toolkit) if os.path.islink(compiler) else 0
    if not changed:
        return

    def copy(new: "BinaryIO") -> None:
        with open(compiler, "rb") as source:
            while os.sendfile(new.fileno(), source.fileno(), None, 1 << 30):
                pass
        os.utime(new.fileno(), (changed, changed))

    _replace(compiler, 0o755, copy)


def _remember(own: str, path: str) -> None:
    """Record in the stamp of the root *own* the path to activate it by, if the stamp can be written."""
    stamp = os.path.join(own, STAMP)
    try:
        with open(stamp, "rb") as file:
            records = file.read().partition(b"\0")[2]
        _replace(stamp, 0o644, lambda new: new.write(os.fsencode(path) + b"\0" + records))
    except OSError:
        pass


def _replace(path: str, mode: int, write: "Callable[[BinaryIO], object]") -> None:
    """Replace the file *path* with what *write* writes, or leave it unchanged. Raises OSError, or *write*'s error."""
    new = f"{path}.{os.getpid()}"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as file:
            write(file)
        os.replace(new, path)
    except BaseException:
        if os.path.lexists(new):
            os.unlink(new)
        raise


def _time_of_compiler(toolkit: Toolkit) -> int:
    """A time computed from nvcc's hash in its distribution's RECORD; 0 if that has none."""
    for entry in toolkit.entries:
        version = versions([entry]).get("nvidia_cuda_nvcc")
        try:
            with open(os.path.join(entry, f"nvidia_cuda_nvcc-{version}.dist-info", "RECORD"), "rb") as file:
                digest = file.read().partition(b"/bin/nvcc,sha256=")[2][:43]
        except OSError:
            continue
        return int.from_bytes(digest, "big") % 10**9
    return 0
