"""Where the root of a toolkit is, in its environment or in the user's cache; is it current; putting it there."""

import os
import time

from cuda_build_activate import DIRECTORY, _toolkit, is_current
from cuda_build_activate._toolkit import Toolkit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_IN_USE_S = 600  # a tree that is younger may be in the making


def find_or_make(toolkit: Toolkit, environ: "Mapping[str, str]") -> "tuple[str, str]":
    """The directory to activate, made if need be, and what is to be said of it; empty, and why, if there is none."""
    if _toolkit.WINDOWS:  # there the wheels' own directory has the layout of an installed toolkit
        return toolkit.wheels, ""
    name = _root_name(toolkit)
    for base, private in _bases(toolkit, environ):
        root = os.path.join(base, name)
        if _is_usable(root, toolkit.entries[0]) and (not private or _is_private(private)):
            return root, ""
    try:
        return _make(toolkit, environ), ""
    except OSError as error:
        if toolkit.nvcc:
            return toolkit.wheels, f" (the wheels' own directory: no toolkit root could be made: {error})"
        return "", str(error)


def _bases(toolkit: Toolkit, environ: "Mapping[str, str]") -> "list[tuple[str, str]]":
    """The directories that may hold *toolkit*'s root, best first, each with the directory that must be private for it.

    Inside the environment, so that the root dies with it (nothing must be private for that); or in the user's cache.
    """
    found = [(os.path.join(toolkit.entries[0], DIRECTORY), "")]
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", ""), ".cache")
    if os.path.isabs(cache):
        private = os.path.join(cache, DIRECTORY)
        found.append((os.path.join(private, _fingerprint(toolkit.entries[:1])), private))
    return found


def _root_name(toolkit: Toolkit) -> str:
    """The name of *toolkit*'s root: what is seen through more `sys.path` entries than one is another root."""
    name = f"cu{toolkit.major}"
    return f"{name}-{_fingerprint(toolkit.entries[1:])}" if len(toolkit.entries) > 1 else name


def _is_private(directory: str) -> bool:
    """Whether *directory* is this user's own, no link, and closed to everybody else. Raises OSError."""
    found = os.lstat(directory)
    return found.st_mode == 0o40700 and found.st_uid == os.geteuid()


def _is_usable(root: str, entry: str) -> bool:
    """Whether *root* is there, and as what it was made from, in *entry*."""
    try:
        return is_current(root, entry)
    except (LookupError, OSError, ValueError):
        return False


def _make(toolkit: Toolkit, environ: "Mapping[str, str]") -> str:
    """Make *toolkit*'s root where that is possible first, and return its path. Raises OSError if that is nowhere."""
    errors = []
    for base, private in _bases(toolkit, environ):
        try:
            if private:
                for directory in (os.path.dirname(private), private):  # and no home directory that is not there
                    _make_directory(directory, 0o700)
                if not _is_private(private):
                    raise PermissionError(f"{private} is not closed to other users")
            _make_directory(base, 0o755)
            if os.path.islink(base):
                raise OSError(f"{base} is a link")  # the root's relative links would climb out of it to somewhere else
            return _place(os.path.join(base, _root_name(toolkit)), toolkit)
        except OSError as error:  # not writable, full, or a file system without links
            errors.append(str(error))
    raise OSError("; ".join(errors))


def _place(root: str, toolkit: Toolkit) -> str:
    """Make the root whole under a name of its own, then let *root* point at that in one step; return *root*."""
    from cuda_build_activate import _assemble  # once per environment, and again when its components change

    base, name = os.path.split(root)
    tree = os.path.join(base, f".{name}.{os.getpid()}.{time.time_ns():x}")
    link, copy = f"{tree}.link", f"{tree}.copy"
    replaced = ""
    try:
        _assemble.assemble(toolkit, tree)
        if _is_usable(root, toolkit.entries[0]):  # another process was faster, and more may use its root already
            _discard(tree)
            return root
        os.symlink(os.path.basename(tree), link)
        if os.path.islink(root):
            replaced = os.readlink(root)
        elif os.path.isdir(root):  # a copy of the environment that followed the links
            os.rename(root, copy)
        os.replace(link, root)
        _discard(copy)
    except BaseException:
        _discard(link)
        _discard(tree)
        raise
    _sweep(base, f".{name}.", (os.path.basename(tree), replaced))
    return root


def _sweep(base: str, prefix: str, used: "tuple[str, ...]") -> None:
    """Remove what was replaced, or abandoned, in *base*; not what is *used*, nor may be in the making."""
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                # Whoever has just been using the replaced one must not see it vanish.
                other = entry.name.startswith(prefix) and entry.name not in used
                if other and time.time() - entry.stat(follow_symlinks=False).st_mtime > _IN_USE_S:
                    _discard(entry.path)
    except OSError:
        pass


def _make_directory(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass


def _discard(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil  # seldom needed

        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            os.unlink(path)
        except OSError:
            pass


def _fingerprint(paths: "list[str]") -> str:
    # hash() differs from run to run, and hashlib would be an import.
    return format(int.from_bytes(os.fsencode("\0".join(paths)), "big") % (2**61 - 1), "x")
