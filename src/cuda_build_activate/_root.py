"""Where the root of a toolkit is, in its environment or in the user's cache; is it current; putting it there."""

import os
import time

from cuda_build_activate import DIRECTORY, STABLE, UNUSABLE, _toolkit, current
from cuda_build_activate._toolkit import OFF, Toolkit, fingerprint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_IN_USE_S = 600  # a tree that is younger may be in the making
_BASE = "/tmp/cba-"  # noqa: S108  # short: gcc takes the shorter of two names of a header; the user's number follows
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108  # as Python's tempfile has them
# Where front ends keep build environments that are no more permanent: uv in its cache, tox in the project.
_BUILDS = ("/builds-v0/.tmp", "/.tox/.pkg")


def find_or_make(toolkit: Toolkit, environ: "Mapping[str, str]") -> "tuple[str, str, str]":
    """The path to activate, of a root made if need be, and what to say of it; empty, and why, if there is none.

    And why that is no stable path, if it should be one.
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
    if _toolkit.WINDOWS:  # where a link to a directory takes a privilege
        return path, "", ""
    path, complaint = _seen_by(toolkit, own, path, environ)
    return path, "", complaint


def _seen_by(toolkit: Toolkit, own: str, remembered: str, environ: "Mapping[str, str]") -> "tuple[str, str]":
    """The path to activate *toolkit*'s root by, which is *own* in its environment; and why that is no stable path.

    remembered: the path that the root's stamp has.
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
    """The directory of the stable path that the root *own* gets, if it does; and what is wrong with its variable.

    It gets one where the environment is temporary, and where its own path is one that no toolkit works in.
    """
    wanted = environ.get(STABLE, "")
    if wanted.lower() in OFF or not (_is_temporary(toolkit.entries[0], environ) or {*own}.intersection(UNUSABLE)):
        return "", ""
    if not wanted:
        return f"{_BASE}{os.geteuid()}", ""
    if os.path.isabs(wanted) and not {*wanted}.intersection(UNUSABLE):
        return os.path.normpath(wanted), ""
    return "", f"{STABLE}={wanted!r} is neither off nor the absolute path of a directory"


def _is_temporary(path: str, environ: "Mapping[str, str]") -> bool:
    directories = (*(environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")), *_TEMPORARY)
    return any(build in path for build in _BUILDS) or any(
        os.path.isabs(directory) and path.startswith(os.path.join(directory, "")) for directory in directories
    )


def _bases(toolkit: Toolkit, environ: "Mapping[str, str]") -> "list[tuple[str, str]]":
    """The directories that may hold *toolkit*'s root, best first, each with the directory that must be private for it.

    Inside the environment, so that the root dies with it (nothing must be private for that); or in the user's cache.
    There alone on Windows: who may not write there may not make hard links to what is there.
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
    """The name of *toolkit*'s root: what is seen through more `sys.path` entries than one is another root."""
    name = f"cu{toolkit.major}"
    return f"{name}-{fingerprint(toolkit.entries[1:])}" if len(toolkit.entries) > 1 else name


def _path(root: str, entry: str) -> str:
    """The path to activate *root* by, if it is there and as what it was made from, in *entry*; else empty."""
    if _toolkit.WINDOWS:
        from cuda_build_activate import _windows

        return _windows.current(root, entry)
    try:
        return current(root, entry)
    except (LookupError, OSError, ValueError):
        return ""


def _make(toolkit: Toolkit, environ: "Mapping[str, str]") -> str:
    """Make *toolkit*'s root where that is possible first, and return its path. Raises OSError if that is nowhere."""
    errors = []
    for base, private in _bases(toolkit, environ):
        try:
            if private:
                make_directory(os.path.dirname(private), 0o700)  # and no home directory that is not there
                make_private(private)
            make_directory(base, 0o755)
            if os.path.islink(base):
                raise OSError(f"{base} is a link")  # the root's relative links would climb out of it to somewhere else
            return _place(os.path.join(base, _root_name(toolkit)), toolkit)
        except OSError as error:  # not writable, full, or a file system without links
            errors.append(str(error))
    raise OSError("; ".join(errors))


def _place(root: str, toolkit: Toolkit) -> str:
    """Make the root whole under a name of its own, then let *root* point at that in one step; return *root*.

    On Windows the one is renamed to the other, or to a name like it, which is returned.
    """
    from cuda_build_activate import _assemble  # once per environment, and again when its components change

    base, name = os.path.split(root)
    tree = os.path.join(base, f".{name}.{os.getpid()}.{time.time_ns():x}")
    link, copy = f"{tree}.link", f"{tree}.copy"
    replaced = ""
    try:
        _assemble.assemble(toolkit, tree)
        found = _path(root, toolkit.entries[0])
        if found:  # another process was faster, and more may use its root already
            _discard(tree)
            return found
        if _toolkit.WINDOWS:
            from cuda_build_activate import _windows

            root = _windows.put(tree, root, copy)
            _discard(tree)  # which is there if another process was faster
        else:
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
    """Make the directory *path*, this user's own and closed to others. Raises OSError if it is not that."""
    make_directory(path, 0o700)
    above = os.stat(os.path.dirname(path)).st_mode
    if not is_private(path) or (above & 0o002 and not above & 0o1000):
        raise PermissionError(f"{path} is not closed to other users")


def is_private(path: str) -> bool:
    """Whether *path* is this user's own directory, no link, and closed to everybody else. Raises OSError."""
    found = os.lstat(path)
    return found.st_mode == 0o40700 and found.st_uid == os.geteuid()


def make_directory(path: str, mode: int) -> None:
    """Make the directory *path*, unless it is there. Raises OSError."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
