"""Decide what to activate, and apply it: the public API, and every start that is not a simple case."""

import os
import sys

from cuda_build_activate import (
    LONGEST,
    MARKER,
    OF_SITE,
    ROOT_VARIABLES,
    RPATH,
    SITE,
    SWITCH,
    UNUSABLE,
    VERBOSE,
    _toolkit,
)
from cuda_build_activate._toolkit import OFF, find, nvcc_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

ON = ("", "1", "on", "true", "yes")

_told = ""


class Activation:
    """What `activate()` did.

    rule: the one that decided (docs/reference/decision.md): 1 the switch, 2 CUDACXX, 3 a toolkit with nvcc, 4 one
    without, 5 none. code: why nothing was activated, as one of the doctor's codes; empty if something was. reason: the
    result in words. root: the activated toolkit root, and major: its CUDA major version; None if nothing was activated.
    no_stable_path: why the root has no stable path, if it should have one. variables: all environment variables of the
    activation, with their values; empty if nothing was activated.
    """

    __slots__ = ("_words", "code", "major", "no_stable_path", "root", "rule", "variables")

    def __init__(
        self,
        rule: int,
        code: str,
        words: str,
        root: "str | None" = None,
        major: "int | None" = None,
        variables: "dict[str, str] | None" = None,
        no_stable_path: str = "",
    ) -> None:
        self.rule = rule
        self.code = code
        self._words = words  # why nothing was activated, or a note on the root
        self.root = root
        self.major = major
        self.variables = variables or {}
        self.no_stable_path = no_stable_path

    def __repr__(self) -> str:
        return f"Activation(root={self.root!r}, reason={self.reason!r})"

    @property
    def reason(self) -> str:
        """What was activated, with its version (or major version, if that is unknown), or why nothing was."""
        if self.root is None:
            return f"nothing activated: {self._words}"
        nvcc = "with nvcc" if self.rule == 3 else "without nvcc"
        own = f" -> {self.own_root}" if self.own_root != self.root else ""
        stable = f" (no stable path: {self.no_stable_path})" if self.no_stable_path else ""
        return f"activated CUDA {self.version or self.major} {nvcc}: {self.root}{own}{self._words}{stable}"

    @property
    def own_root(self) -> "str | None":
        """Where the root is, if `root` is a stable path to it; else the same as `root`."""
        if self.root and os.path.islink(self.root) and os.path.isabs(os.readlink(self.root)):
            return os.readlink(self.root)
        return self.root

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
    """Activate at interpreter start, for the site directory *sitedir*, if known. Never raises."""
    global _told
    try:
        paths = list(sys.path)
        if sitedir and sitedir not in paths:
            paths.insert(0, sitedir)
        activation = decide(os.environ, paths)
        if activation.root != os.environ.get(MARKER):  # the build may have changed what its parent set
            _apply(activation, os.environ)
    except Exception as error:
        activation = Activation(0, "failed", repr(error))
    try:
        if os.environ.get(VERBOSE, "").lower() in ("", *OFF):
            return
        told = activation.reason
        if told != _told:  # before Python 3.15, a venv's .pth files are processed twice: say it once
            _told = told
            # One line, whatever characters a path has.
            printable = told if told.isprintable() else told.encode("unicode_escape").decode()
            sys.stderr.write(f"cuda-build-activate: {printable}\n")
    except Exception:
        pass  # there is no usable stderr


def activate(
    paths: "Iterable[str | os.PathLike[str]] | None" = None, environ: "MutableMapping[str, str] | None" = None
) -> Activation:
    """Point *environ* at the CUDA toolkit installed on *paths*: set all variables, or none.

    paths: directories to search, like those of `sys.path`, the default. environ: a mapping to change instead of
    `os.environ`. Makes the toolkit root if there is none yet. Calling it again changes nothing. Returns an
    `Activation`; if there is no toolkit, or the user chose another, its root is None and its reason says why. Raises
    TypeError if *paths* is a single string.
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
    """Decide what activating the toolkit on *paths* means for *environ*, without changing *environ*.

    The only function that decides: the first rule that applies wins, and an empty variable counts as unset. If it
    decides for a toolkit, it makes the toolkit's root, unless that exists.
    """
    major, code, complaint = requested_major(environ)
    if code:
        return Activation(1, code, complaint)
    active = environ.get(MARKER, "")
    if not os.path.basename(active).startswith("cu"):  # not our root: leave its bin in PATH
        active = ""
    compiler = environ.get("CUDACXX")
    if compiler and not (active and compiler == os.path.join(active, "bin", nvcc_name())):
        return Activation(2, "compiler-chosen", f"CUDACXX is set to {compiler}")
    toolkit = find(paths, major)
    if toolkit is None:
        return Activation(5, "no-toolkit", "no CUDA toolkit in this environment")
    rule, name = (3, f"CUDA {toolkit.major} with nvcc") if toolkit.nvcc else (4, f"CUDA {toolkit.major} without nvcc")
    other = "" if toolkit.nvcc else _other_toolkit(environ, active)
    if other:
        return Activation(rule, "not-displaced", f"{name} does not displace {other}")
    from cuda_build_activate._root import find_or_make  # not for the decisions above

    root, note, no_stable_path = find_or_make(toolkit, environ)
    if not root:
        return Activation(rule, "root-not-writable", f"no toolkit root for {name} could be made: {note}")
    unusable = _unusable(root, environ)
    if unusable:
        return Activation(rule, "unusable-path", f"no toolkit works in a path with {unusable!r}: {root}")
    if not _toolkit.WINDOWS and os.stat(os.path.join(root, "bin")).st_mode & 0o002:
        return Activation(rule, "open-to-others", f"any user can write to {root}/bin")
    variables = dict.fromkeys((MARKER, *ROOT_VARIABLES), root)
    variables[SITE] = root + OF_SITE
    variables["PATH"] = _prepend(environ.get("PATH") or os.defpath, _bin(root), _bin(active))
    variables["CMAKE_PREFIX_PATH"] = _prepend(environ.get("CMAKE_PREFIX_PATH", ""), [root], [active] if active else [])
    if not _toolkit.WINDOWS:
        mode, complaint = requested_run_paths(environ)
        if mode or active:
            from cuda_build_activate import _run_path

            if mode and not os.path.exists(os.path.join(root, _run_path.RESPONSE_FILE)):  # the wheels' own directory
                mode, complaint = "", f"{root} has no {_run_path.RESPONSE_FILE}"
            variables.update(_run_path.variables(environ, mode, root, active or root))
        # The first, with only the driver's stubs, lets gcc link -lcuda. With run paths, CMake 4.4 needs the second: a
        # response file in LDFLAGS hides from it where nvcc looks, and its g++ would not find CUDA's runtime.
        stubs, libraries = _libraries(root)
        searched = [stubs, libraries] if mode else [stubs]
        before = _libraries(active) if active else []
        variables["LIBRARY_PATH"] = _prepend(environ.get("LIBRARY_PATH", ""), searched, before)
        if mode or complaint:
            note += f" (run paths: {mode})" if mode else f" (no run paths: {complaint})"
    if toolkit.nvcc:
        variables["CUDACXX"] = os.path.join(root, "bin", nvcc_name())
    if _toolkit.WINDOWS:  # names have no case there, and copies of os.environ have capitals
        variables = {name.upper(): value for name, value in variables.items()}
    for variable, value in variables.items():
        if len(value) > LONGEST:
            return Activation(rule, "too-long", f"{variable} would be too long")
    return Activation(rule, "", note, root, toolkit.major, variables, no_stable_path)


def _unusable(root: str, environ: "Mapping[str, str]") -> str:
    """What tools would misread in the path *root*; empty if nothing."""
    if _toolkit.WINDOWS:
        # nvcc runs its tools in cmd, which replaces %NAME% by a variable's value.
        names = [f"%{name}%" for name in root.split("%")[1:-1] if environ.get(name)]
        return names[0] if names else ";" * (";" in root)
    return min({*root}.intersection(UNUSABLE), default="")


def requested_major(environ: "Mapping[str, str]") -> "tuple[int | None, str, str]":
    """The CUDA major version that CUDA_BUILD_ACTIVATE asks for, if any; or why to activate nothing: code and words."""
    switch = environ.get(SWITCH, "").lower()
    if switch in ON:
        return None, "", ""
    if switch in OFF:
        return None, "switched-off", "switched off by CUDA_BUILD_ACTIVATE"
    if switch.isdecimal() and len(switch) < 4:
        return int(switch), "", ""
    return None, "bad-switch", f"CUDA_BUILD_ACTIVATE={switch!r} is neither on nor off nor a CUDA major version"


def requested_run_paths(environ: "Mapping[str, str]") -> "tuple[str, str]":
    """The mode that CUDA_BUILD_ACTIVATE_RPATH asks for, or empty; and what is wrong with the variable, if anything."""
    mode = environ.get(RPATH, "").lower()
    if mode in ("relative", "absolute"):
        return mode, ""
    return "", "" if mode in ("", *OFF) else f"{RPATH}={mode!r} is neither relative nor absolute"


def _other_toolkit(environ: "Mapping[str, str]", active: str) -> str:
    """What a toolkit without nvcc must not displace, in words; empty if nothing."""
    for name in ROOT_VARIABLES:
        if environ.get(name, active) not in ("", active):
            return f"{name}={environ[name]}"
    for directory in environ.get("PATH", "").split(os.pathsep):
        if directory and os.path.isfile(os.path.join(directory, nvcc_name())):
            return os.path.join(directory, nvcc_name())
    return ""


def _bin(root: str) -> "list[str]":
    if not root:
        return []
    directory = os.path.join(root, "bin")
    if _toolkit.WINDOWS:  # DLLs lie one level down, in our root, an installed CUDA 13 and the wheels
        dlls = [os.path.join(directory, machine) for machine in ("x64", "arm64", "x86_64")]
        return [directory, *(path for path in dlls if os.path.isdir(path))]
    return [directory]


def _libraries(root: str) -> "list[str]":
    return [os.path.join(root, "lib64", "stubs"), os.path.join(root, "lib64")]


def _prepend(value: str, new: "list[str]", old: "list[str]") -> str:
    """*value*, a list like PATH, with *new* in front and without *old*; unchanged if it has *new* already."""
    entries = value.split(os.pathsep) if value else []
    if {*new} <= {*old} and {*new} == {*old} & {*entries}:
        return value
    return os.pathsep.join([*new, *(entry for entry in entries if entry not in new and entry not in old)])
