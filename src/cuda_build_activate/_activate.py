"""Find the toolkit of an environment, decide, apply: what an interpreter start does where it takes a decision."""

import os
import sys

from cuda_build_activate import (
    DIRECTORY,
    LONGEST,
    MARKER,
    ROOT_VARIABLES,
    SITE,
    SWITCH,
    UNUSABLE,
    VERBOSE,
    is_current,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping

WINDOWS = os.name == "nt"
HEADER = "cuda_runtime_api.h"  # without it nothing can be built
NVCC = "nvcc.exe" if WINDOWS else "nvcc"
OFF = ("0", "off", "false", "no")
ON = ("", "1", "on", "true", "yes")

_told = ""


class Toolkit:
    """A CUDA toolkit installed as wheels.

    major: CUDA's major version. entries: the `sys.path` entries that hold its components and products, in order.
    wheels: the directory of its components in the first entry that has the compiler, or any.
    nvcc: whether one has the compiler.
    """

    __slots__ = ("entries", "major", "nvcc", "wheels")

    def __init__(self, major: int, entries: "list[str]", wheels: str, nvcc: bool) -> None:
        self.major = major
        self.entries = entries
        self.wheels = wheels
        self.nvcc = nvcc


class Activation:
    """What `activate()` did.

    rule: the rule that decided, 1 to 5 as in the README: 1 the switch, 2 CUDACXX, 3 a toolkit with nvcc, 4 one without,
    5 none. code: why nothing was activated, by the doctor's name for it; empty if something was. reason: the same in
    words. root: the toolkit root that was activated, and major: its CUDA's major version; None if nothing was.
    variables: every environment variable of the activation with its value; empty if nothing was.
    """

    __slots__ = ("code", "major", "reason", "root", "rule", "variables")

    def __init__(
        self,
        rule: int,
        code: str,
        reason: str,
        root: "str | None" = None,
        major: "int | None" = None,
        variables: "dict[str, str] | None" = None,
    ) -> None:
        self.rule = rule
        self.code = code
        self.reason = reason
        self.root = root
        self.major = major
        self.variables = variables or {}

    def __repr__(self) -> str:
        return f"Activation(root={self.root!r}, reason={self.reason!r})"

    @property
    def version(self) -> "str | None":
        """The toolkit's version, such as ``"13.4.92"``, from the root's version.txt; None if nothing was activated."""
        if self.root is None:
            return None
        try:
            with open(os.path.join(self.root, "version.txt"), "rb") as file:
                return file.readline().decode("ascii").split()[-1]
        except (OSError, ValueError, IndexError):
            return None


def startup(sitedir: "str | None") -> None:
    """Activate at interpreter start, for the site directory *sitedir* if it is known. Never raises."""
    global _told
    try:
        paths = list(sys.path)
        if sitedir and sitedir not in paths:
            paths.insert(0, sitedir)
        activation = decide(os.environ, paths)
        told = activation.reason
        if activation.root:
            site = sitedir or os.path.dirname(os.path.dirname(activation.root))
            if activation.root != os.environ.get(MARKER):
                _apply(activation, os.environ)
                os.environ[SITE] = site
            else:  # what the parent activated, the build may have changed for its children
                os.environ.setdefault(SITE, site)
    except Exception as error:
        told = f"nothing activated: {error!r}"
    try:
        # A .pth file is processed twice in every venv before Python 3.15: say the same thing once.
        if told != _told and os.environ.get(VERBOSE, "").lower() not in ("", *OFF):
            _told = told
            # One line, whatever is in a path.
            printable = told if told.isprintable() else told.encode("unicode_escape").decode()
            sys.stderr.write(f"cuda-build-activate: {printable}\n")
    except Exception:
        pass  # no usable stderr: there is nobody to tell


def activate(
    paths: "Iterable[str | os.PathLike[str]] | None" = None, environ: "MutableMapping[str, str] | None" = None
) -> Activation:
    """Point *environ* at the CUDA toolkit installed on *paths*, all or nothing.

    paths: directories to search, in the manner of `sys.path`, which is the default. environ: a mapping to change
    instead of `os.environ`. Doing it again changes nothing. Makes the toolkit root in the environment when there is
    none yet. Nothing found, or a choice of the user's, is no error: see the result's reason. Raises TypeError if
    *paths* is a single string.
    """
    if isinstance(paths, (str, bytes)):
        raise TypeError("paths must be an iterable of directories, not a single string")
    if environ is None:
        environ = os.environ
    return _apply(decide(environ, sys.path if paths is None else [os.fspath(path) for path in paths]), environ)


def _apply(activation: Activation, environ: "MutableMapping[str, str]") -> Activation:
    for name, value in activation.variables.items():
        if environ.get(name) != value:
            environ[name] = value
    return activation


def decide(environ: "Mapping[str, str]", paths: "Iterable[object]") -> Activation:
    """Decide what activating the toolkit on *paths* means for *environ*, and change nothing in that.

    The only decision function: first match wins, and an empty variable counts as unset. Where it decides for a toolkit,
    that toolkit's root is there when it returns: it may have made it.
    """
    major, code, complaint = requested_major(environ)
    if code:
        return _nothing(1, code, complaint)
    active = environ.get(MARKER, "")
    if not os.path.basename(active).startswith("cu"):  # no root of ours: its bin is not ours to remove from PATH
        active = ""
    compiler = environ.get("CUDACXX")
    if compiler and not (active and compiler == os.path.join(active, "bin", NVCC)):
        return _nothing(2, "compiler-chosen", f"CUDACXX chooses {compiler}")
    toolkit = find(paths, major)
    if toolkit is None:
        return _nothing(5, "no-toolkit", "no CUDA toolkit in this environment")
    rule, name = (3, f"CUDA {toolkit.major} with nvcc") if toolkit.nvcc else (4, f"CUDA {toolkit.major} without nvcc")
    other = "" if toolkit.nvcc else _other_toolkit(environ, active)
    if other:
        return _nothing(rule, "not-displaced", f"there is {name} in this environment, and {other}")
    root, note = _root(toolkit, environ)
    if not root:
        return _nothing(rule, "root-not-writable", f"no toolkit root for {name} could be made: {note}")
    unusable = (frozenset(";") if WINDOWS else UNUSABLE).intersection(root)
    if unusable:
        return _nothing(rule, "unusable-path", f"no toolkit works where {min(unusable)!r} is in the path: {root}")
    if not WINDOWS and os.stat(os.path.join(root, "bin")).st_mode & 0o002:
        return _nothing(rule, "open-to-others", f"everybody can write to {root}/bin")
    variables = dict.fromkeys((MARKER, *ROOT_VARIABLES), root)
    variables["PATH"] = _prepend(environ.get("PATH") or os.defpath, _bin(root), _bin(active))
    variables["CMAKE_PREFIX_PATH"] = _prepend(environ.get("CMAKE_PREFIX_PATH", ""), [root], [active] if active else [])
    if not WINDOWS:  # so that gcc links -lcuda: nothing but the driver's stubs is there
        variables["LIBRARY_PATH"] = _prepend(environ.get("LIBRARY_PATH", ""), _stubs(root), _stubs(active))
    if toolkit.nvcc:
        variables["CUDACXX"] = os.path.join(root, "bin", NVCC)
    for variable, value in variables.items():
        if len(value) > LONGEST:
            return _nothing(rule, "too-long", f"{variable} would be too long")
    return Activation(rule, "", f"activated {name}: {root}{note}", root, toolkit.major, variables)


def _nothing(rule: int, code: str, why: str) -> Activation:
    return Activation(rule, code, f"nothing activated: {why}")


def requested_major(environ: "Mapping[str, str]") -> "tuple[int | None, str, str]":
    """The CUDA major version that CUDA_BUILD_ACTIVATE asks for; the code and the words for why it asks for nothing."""
    switch = environ.get(SWITCH, "").lower()
    if switch in ON:
        return None, "", ""
    if switch in OFF:
        return None, "switched-off", "switched off by CUDA_BUILD_ACTIVATE"
    if switch.isdecimal():
        return int(switch), "", ""
    return None, "bad-switch", f"CUDA_BUILD_ACTIVATE={switch!r} is neither a switch nor a CUDA major version"


def find(paths: "Iterable[object]", major: "int | None" = None) -> "Toolkit | None":
    """Find the toolkit on *paths*: of several majors the newest with nvcc, or else the newest; or *major* alone.

    Looks at the file system and never at `nvidia.__path__`: some CUDA 12 wheels ship an `nvidia/__init__.py`, which
    hides the namespace package's other parts.
    """
    entries: dict[tuple[int, int], str] = {}
    found: dict[int, tuple[bool, str]] = {}
    for entry in dict.fromkeys(path for path in paths if isinstance(path, str) and os.path.isabs(path)):
        nvidia = os.path.join(entry, "nvidia")
        try:
            names = os.listdir(nvidia)
        except (OSError, ValueError):  # ValueError: a null character
            names = []
        # The one product whose wheel lies outside nvidia/ (cutensor-cu13 2.8.1).
        if names or os.path.isdir(os.path.join(entry, "cutensor")):
            # Fedora's venvs have lib64 and lib on sys.path, a link and what it points to.
            identity = os.stat(entry)
            if entries.setdefault((identity.st_dev, identity.st_ino), entry) != entry:
                continue
        for number, wheels in _toolkits(nvidia, names):
            if major in (None, number) and not found.get(number, (False,))[0]:
                nvcc = os.path.isfile(os.path.join(wheels, "bin", NVCC))
                # pip leaves empty directories behind.
                if nvcc or (number not in found and os.path.isfile(os.path.join(wheels, "include", HEADER))):
                    found[number] = nvcc, wheels
    if not found:
        return None
    newest = max(found, key=lambda number: (found[number][0], number))
    nvcc, wheels = found[newest]
    return Toolkit(newest, list(entries.values()), wheels, nvcc)


def _toolkits(nvidia: str, names: "list[str]") -> "Iterator[tuple[int, str]]":
    """Each toolkit's major version and directory of components, for the *names* in the directory *nvidia*."""
    for name in names:
        directory = os.path.join(nvidia, name)
        if name.startswith("cu") and name[2:].isdecimal():  # cu13, and not cublas
            yield int(name[2:]), directory
        elif name == "cuda_runtime" and not WINDOWS:  # CUDA 11 and 12: a directory per component, and no nvcc
            try:
                libraries = os.listdir(os.path.join(directory, "lib"))
            except OSError:
                continue
            for library in libraries:
                number = library.partition("libcudart.so.")[2].partition(".")[0]
                if number.isdecimal():
                    yield int(number), directory


def bases(toolkit: Toolkit, environ: "Mapping[str, str]") -> "list[tuple[str, str]]":
    """The directories that may hold *toolkit*'s root, best first, each with the directory that must be private for it.

    Inside the environment, so that the root dies with it (nothing must be private for that); or in the user's cache.
    """
    found = [(os.path.join(toolkit.entries[0], DIRECTORY), "")]
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", ""), ".cache")
    if os.path.isabs(cache):
        private = os.path.join(cache, DIRECTORY)
        found.append((os.path.join(private, _fingerprint(toolkit.entries[:1])), private))
    return found


def root_name(toolkit: Toolkit) -> str:
    """The name of *toolkit*'s root: what is seen through more `sys.path` entries than one is another root."""
    name = f"cu{toolkit.major}"
    return f"{name}-{_fingerprint(toolkit.entries[1:])}" if len(toolkit.entries) > 1 else name


def is_private(directory: str) -> bool:
    """Whether *directory* is this user's own, no link, and closed to everybody else. Raises OSError."""
    found = os.lstat(directory)
    return found.st_mode == 0o40700 and found.st_uid == os.geteuid()


def is_usable(root: str, entry: str) -> bool:
    """Whether *root* is there, and as what it was made from, in *entry*."""
    try:
        return is_current(root, entry)
    except (LookupError, OSError, ValueError):
        return False


def _root(toolkit: Toolkit, environ: "Mapping[str, str]") -> "tuple[str, str]":
    """The directory to activate, made if need be, and what is to be said of it; empty, and why, if there is none."""
    if WINDOWS:  # there the wheels' own directory has the layout of an installed toolkit
        return toolkit.wheels, ""
    name = root_name(toolkit)
    for base, private in bases(toolkit, environ):
        root = os.path.join(base, name)
        if is_usable(root, toolkit.entries[0]) and (not private or is_private(private)):
            return root, ""
    from cuda_build_activate import _assemble  # once per environment, and again when its components change

    try:
        return _assemble.assemble(toolkit, environ), ""
    except OSError as error:
        if toolkit.nvcc:
            return toolkit.wheels, f" (the wheels' own directory: no toolkit root could be made: {error})"
        return "", str(error)


def _other_toolkit(environ: "Mapping[str, str]", active: str) -> str:
    """What a toolkit without a compiler must not displace, in words; empty if there is nothing."""
    for name in ROOT_VARIABLES:
        if environ.get(name, active) not in ("", active):
            return f"{name}={environ[name]}"
    for directory in environ.get("PATH", "").split(os.pathsep):
        if directory and os.path.isfile(os.path.join(directory, NVCC)):
            return os.path.join(directory, NVCC)
    return ""


def _bin(root: str) -> "list[str]":
    if not root:
        return []
    directory = os.path.join(root, "bin")
    if WINDOWS:  # the DLLs lie one level down (nvidia-cublas 13)
        dlls = [os.path.join(directory, machine) for machine in ("x86_64", "arm64")]
        return [directory, *(path for path in dlls if os.path.isdir(path))]
    return [directory]


def _stubs(root: str) -> "list[str]":
    return [os.path.join(root, "lib64", "stubs")] if root else []


def _prepend(value: str, new: "list[str]", old: "list[str]") -> str:
    """*value*, a list as PATH is one, with *new* in front and without *old*; as it is if it has *new* already."""
    entries = value.split(os.pathsep) if value else []
    if new == old and new[0] in entries:
        return value
    return os.pathsep.join([*new, *(entry for entry in entries if entry not in new and entry not in old)])


def _fingerprint(paths: "list[str]") -> str:
    # hash() differs from run to run, and hashlib would be an import.
    return format(int.from_bytes(os.fsencode("\0".join(paths)), "big") % (2**61 - 1), "x")
