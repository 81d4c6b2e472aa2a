"""Find a toolkit's root, in its environment or in the user's cache, or make it if it is missing or stale."""

import os
import time

from cuda_build_activate import DIRECTORY, STABLE, UNUSABLE, _toolkit, current
from cuda_build_activate._toolkit import OFF, Toolkit, fingerprint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_IN_USE_S = 600  # a younger tree may still be in use, or half written
_BASE = "/tmp/cba-"  # noqa: S108  # the user's number follows. Short: gcc takes the shorter of two names of a header
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108  # as in Python's tempfile
# Where front ends keep build environments that are just as temporary: uv in its cache, tox in the project.
_BUILDS = ("/builds-v0/.tmp", "/.tox/.pkg")


def find_or_make(toolkit: Toolkit, environ: "Mapping[str, str]") -> "tuple[str, str, str]":
    """Find *toolkit*'s root, or make it; return the path to activate, a note, and why that is not a stable path.

    Without a root, the path is empty and the note says why. The third is empty if the path need not be stable, or is.
    """
    name = _root_name(toolkit)
    for base, private in _bases(toolkit, environ):
        own = os.path.join(base, name)
        path = _path(own, toolkit.entries[0])
        if path and (not private or is_private(private)):
            break
    else:
        try:
            path = own = _make(toolkit, environ)
        except OSError as error:
            if toolkit.nvcc:
                return toolkit.wheels, f" (the wheels' own directory: no toolkit root could be made: {error})", ""
            return "", str(error), ""
    if _toolkit.WINDOWS:  # a link to a directory needs a privilege there
        return path, "", ""
    path, complaint = _seen_by(toolkit, own, path, environ)
    return path, "", complaint


def _seen_by(toolkit: Toolkit, own: str, remembered: str, environ: "Mapping[str, str]") -> "tuple[str, str]":
    """The path to activate the root *own* by, and why that is not a stable path, if it should be one.

    remembered: the path in the root's stamp.
    """
    base, complaint = _base(toolkit, own, environ)
    if not base:
        return own, complaint
    if remembered.startswith(f"{base}/"):
        return remembered, ""
    from cuda_build_activate import _stable  # once per environment

    try:
        make_private(base)
        return _stable.claim(own, toolkit, base), ""
    except OSError as error:
        return own, str(error)


def _base(toolkit: Toolkit, own: str, environ: "Mapping[str, str]") -> "tuple[str, str]":
    """The base of the stable path for the root *own*, or empty if it gets none; and what is wrong with the variable.

    It gets one if the environment is temporary, or if no toolkit works in its own path.
    """
    wanted = environ.get(STABLE, "")
    if wanted.lower() in OFF or not (_is_temporary(toolkit.entries[0], environ) or {*own}.intersection(UNUSABLE)):
        return "", ""
    if not wanted:
        return f"{_BASE}{os.geteuid()}", ""
    if os.path.isabs(wanted) and not {*wanted}.intersection(UNUSABLE):
        return os.path.normpath(wanted), ""
    return "", f"{STABLE}={wanted!r} is neither off nor a usable absolute path"


def _is_temporary(path: str, environ: "Mapping[str, str]") -> bool:
    directories = (*(environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")), *_TEMPORARY)
    return any(build in path for build in _BUILDS) or any(
        os.path.isabs(directory) and path.startswith(os.path.join(directory, "")) for directory in directories
    )


def _bases(toolkit: Toolkit, environ: "Mapping[str, str]") -> "list[tuple[str, str]]":
    """The directories that may hold *toolkit*'s root, best first, each with the directory that must be private, if any.

    The first is in the environment, so that the root goes when that goes; the second in the user's cache. On Windows
    there is only the first: without write access to the environment, hard links to its files cannot be made either.
    """
    found = [(os.path.join(toolkit.entries[0], DIRECTORY), "")]
    if _toolkit.WINDOWS:
        return found
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", ""), ".cache")
    if os.path.isabs(cache):
        private = os.path.join(cache, DIRECTORY)
        found.append((os.path.join(private, fingerprint(toolkit.entries[:1])), private))
    return found


def _root_name(toolkit: Toolkit) -> str:
    """The name of *toolkit*'s root; a different one for each set of `sys.path` entries, if several."""
    name = f"cu{toolkit.major}"
    return f"{name}-{fingerprint(toolkit.entries[1:])}" if len(toolkit.entries) > 1 else name


def _path(root: str, entry: str) -> str:
    """The path to activate *root* by if it exists and is current for *entry*; else empty."""
    if _toolkit.WINDOWS:
        from cuda_build_activate import _windows

        return _windows.current(root, entry)
    try:
        return current(root, entry)
    except (LookupError, OSError, ValueError):
        return ""


def _make(toolkit: Toolkit, environ: "Mapping[str, str]") -> str:
    """Make *toolkit*'s root in the first directory possible, and return its path. Raises OSError if there is none."""
    errors = []
    for base, private in _bases(toolkit, environ):
        try:
            if private:
                make_directory(os.path.dirname(private), 0o700)  # but never a missing home directory
                make_private(private)
            make_directory(base, 0o755)
            if os.path.islink(base):
                raise OSError(f"{base} is a link")  # the root's relative links would lead elsewhere
            return _place(os.path.join(base, _root_name(toolkit)), toolkit)
        except OSError as error:  # not writable, full, or a file system without links
            errors.append(str(error))
    raise OSError("; ".join(errors))


def _place(root: str, toolkit: Toolkit) -> str:
    """Write the whole root under another name, then make *root* point at it in one step; return *root*.

    On Windows, rename it to *root* or an alternative, and return that.
    """
    from cuda_build_activate import _assemble  # once per environment, and again when its components change

    base, name = os.path.split(root)
    tree = os.path.join(base, f".{name}.{os.getpid()}.{time.time_ns():x}")
    link, copy = f"{tree}.link", f"{tree}.copy"
    replaced = ""
    try:
        _assemble.assemble(toolkit, tree)
        found = _path(root, toolkit.entries[0])
        if found:  # another process was first, and its root may be in use already
            _discard(tree)
            return found
        if _toolkit.WINDOWS:
            from cuda_build_activate import _windows

            root = _windows.put(tree, root, copy)
            _discard(tree)  # it still exists if another process was first
        else:
            os.symlink(os.path.basename(tree), link)
            if os.path.islink(root):
                replaced = os.readlink(root)
            elif os.path.isdir(root):  # the environment was copied by something that follows links
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
    """Remove replaced and abandoned trees in *base*, except those *used* and recent ones."""
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                # A replaced tree must not vanish while a process still uses it.
                other = entry.name.startswith(prefix) and entry.name not in used
                if other and time.time() - entry.stat(follow_symlinks=False).st_mtime > _IN_USE_S:
                    _discard(entry.path)
    except OSError:
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


def make_private(path: str) -> None:
    """Make *path* a directory of this user's, closed to others. Raises OSError if it is not one then."""
    make_directory(path, 0o700)
    above = os.stat(os.path.dirname(path)).st_mode
    if not is_private(path) or (above & 0o002 and not above & 0o1000):
        raise PermissionError(f"{path} is not closed to other users")


def is_private(path: str) -> bool:
    """Whether *path* is a directory, not a link, that is this user's and closed to others. Raises OSError."""
    found = os.lstat(path)
    return found.st_mode == 0o40700 and found.st_uid == os.geteuid()


def make_directory(path: str, mode: int) -> None:
    """Make the directory *path*, unless it exists. Raises OSError."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
