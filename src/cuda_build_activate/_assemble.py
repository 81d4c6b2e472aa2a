"""What is in the root: the canonical toolkit that is made out of the wheels.

The root is a tree of links with the layout of a toolkit from NVIDIA's installer. Build tools insist on `lib64`, on
unversioned linker names (`libcudart.so`), on `targets/` and on a version file, and the wheels have none of them. On
Windows they lack most import libraries (`cublas.lib`), without which nothing links a DLL.
"""

import os
import time

from cuda_build_activate import DIRECTORY, OF_SITE, STAMP, _toolkit
from cuda_build_activate._run_path import RESPONSE_FILE, response
from cuda_build_activate._stubs import driver_stubs
from cuda_build_activate._toolkit import PRODUCTS, Toolkit, components, toolkit_version, versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    # By place in the root: what it links to, the content of a file, or None for a directory of the root's own.
    Content = dict[str, "str | bytes | None"]


class Row:
    """A row of LAYOUT: what goes where.

    place: where in the root. source: the directory in a wheel. start: with what the names begin of those that go there.
    by_file: whether they are linked file by file, and not by directory. seen: a wheel that has it, and its version.
    """

    __slots__ = ("by_file", "place", "seen", "source", "start")

    def __init__(self, place: str, source: str, *, start: str = "", by_file: bool = False, seen: str) -> None:
        self.place = place
        self.source = source
        self.start = start
        self.by_file = by_file
        self.seen = seen


# Of two files for one place the first row's wins, then the first `sys.path` entry's.
LAYOUT = (
    # CCCL's CMake packages look for the headers relative to themselves: linked file by file they find the root's;
    # where they are installed they find none from 13.2.75 on.
    Row("lib64/cmake", "lib/cmake", by_file=True, seen="nvidia-cuda-cccl 13.2.27"),  # and all before
    Row("lib64/cmake", "cuda_cccl/lib/cmake", by_file=True, seen="nvidia-cuda-cccl 13.2.75"),  # and 13.2.86
    Row("lib64/cmake", "cccl/lib/cmake", by_file=True, seen="nvidia-cuda-cccl 13.3.3.3.1"),  # and all since
    # nvcc finds the toolkit from its own directory, and this from itself: bin must be a directory, not a link to one.
    Row("bin", "bin", seen="nvidia-cuda-nvcc 13.4.92"),
    Row("include", "include", seen="nvidia-cuda-runtime 13.4.92"),
    Row("lib64", "lib", seen="nvidia-cuda-runtime 13.4.92"),
    Row("nvvm", "nvvm", by_file=True, seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/lib64", "lib", start="libnvvm.so", seen="nvidia-nvvm 13.4.92"),  # what nvcc -dlto opens
    Row("nvvm/include", "include", start="nvvm.h", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/bin", "bin", start="cicc", seen="nvidia-nvvm 13.0.48"),  # this one alone
    Row("compute-sanitizer", "compute-sanitizer", seen="nvidia-cuda-sanitizer-api 13.4.92"),
)

# On Windows, where everything is linked file by file: a hard link takes no privilege, and there is none to a directory.
WINDOWS_LAYOUT = (
    Row("lib/cmake", "lib/cmake", seen="nvidia-cuda-cccl 13.0.85"),
    Row("lib/cmake", "cuda_cccl/lib/cmake", seen="nvidia-cuda-cccl 13.2.75"),
    Row("lib/cmake", "cccl/lib/cmake", seen="nvidia-cuda-cccl 13.3.3.3.1"),
    # What loads a DLL itself looks where an installer puts it (CUDA 13): the wheels call that directory otherwise.
    Row("bin/x64", "bin/x86_64", seen="nvidia-cuda-runtime 13.4.92"),
    Row("bin", "bin", seen="nvidia-cuda-nvcc 13.4.92"),
    Row("include", "include", seen="nvidia-cuda-runtime 13.4.92"),
    Row("include", "cccl/include", seen="nvidia-cuda-cccl 13.3.4.2.1"),  # for arm64; this one alone
    Row("lib", "lib", seen="nvidia-cuda-runtime 13.4.92"),
    Row("nvvm", "nvvm", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/bin", "bin/x86_64", start="nvvm64", seen="nvidia-nvvm 13.4.92"),  # what nvcc -dlto opens
    Row("nvvm/bin", "bin/arm64", start="nvvm64", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/include", "include", start="nvvm.h", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/bin", "bin", start="cicc", seen="nvidia-nvvm 13.0.48"),
)

# The directory below targets/ for a machine, by NVIDIA's name.
TARGETS = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}

# A change in the tick of the file system's clock in which a directory was listed can leave its time as it was.
_TICK_NS = 50_000_000
_NEVER = -1  # the time of no directory: what was read then is read again at the next start
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # the last on Windows alone
_PYTHON = ("__init__.py", "__pycache__")  # in the directories of CUDA 12's components


def assemble(toolkit: Toolkit, tree: str) -> None:
    """Write *toolkit*'s root to *tree*, which is not there yet. Raises OSError."""
    _write(tree, plan(toolkit), toolkit.entries[0])
    if not _toolkit.WINDOWS:  # where no path can lie below another directory as it is
        for entry in toolkit.entries:
            _mark(tree, os.path.normpath(entry))


def plan(toolkit: Toolkit) -> "Content":
    """What *toolkit*'s root holds, with the stamp that `current` compares. Raises OSError."""
    root = _Root(toolkit.entries)
    directories = (*components(toolkit), *(product.path for product in PRODUCTS))
    windows = _toolkit.WINDOWS
    for row in WINDOWS_LAYOUT if windows else LAYOUT:
        for directory in directories:
            for entry in toolkit.entries:
                root.merge(row.place, os.path.join(entry, directory, row.source), row.start, row.by_file or windows)
    for place in ("bin", "include"):
        root.directory(place)
    if windows:
        from cuda_build_activate._import_libraries import add_missing

        add_missing(root.content)
    else:
        _add_what_linux_has(root, toolkit, directories)
    installed = versions(toolkit.entries)
    version = toolkit_version(toolkit, installed)
    if version:
        root.content["version.txt"] = f"CUDA Version {version}\n".encode()
        described = ",\n".join(
            f'  "{name}": {{"name": "{name}", "version": "{found}"}}'
            for name, found in {"cuda": version, **installed}.items()
        )
        root.content["version.json"] = f"{{\n{described}\n}}\n".encode()
    root.content[STAMP] = root.stamp()
    return root.content


def _add_what_linux_has(root: "_Root", toolkit: Toolkit, directories: "tuple[str, ...]") -> None:
    """Add the names that linkers look for, the driver's stubs, `targets/`, and the linker option for run paths."""
    root.directory("lib64/stubs")
    root.add_linker_names()
    root.content["lib"] = "lib64"
    machine = os.uname().machine
    links = {place.removeprefix("include/"): what for place, what in root.content.items() if isinstance(what, str)}
    for name, stub in driver_stubs(links, machine).items():
        root.content[f"lib64/stubs/{name}"] = stub
    target = TARGETS.get(machine)
    if target:
        root.directory(f"targets/{target}")
        root.content[f"targets/{target}/include"] = "../../include"
        root.content[f"targets/{target}/lib"] = "../../lib64"
    libraries = dict.fromkeys(
        f"{directory}/lib"
        for directory in directories
        for entry in toolkit.entries
        if os.path.isdir(os.path.join(entry, directory, "lib"))
    )
    root.content[RESPONSE_FILE] = response(libraries)


class _Root:
    """A root in the making: its content, and the time of each directory that this was read from."""

    def __init__(self, entries: list[str]) -> None:
        self.content: Content = {}
        self._entries = entries
        self._times: dict[str, int] = {}
        self._started = time.time_ns()
        self._placed: set[str] = set()

    def merge(self, place: str, source: str, start: str, by_file: bool) -> None:
        """Let *place* show those entries of the directory *source*, if it exists, whose names begin with *start*.

        What was merged as a whole is not shown again by the directory that it lies in.
        """
        # An installation that changes what lies deeper makes what it lies in anew. On Windows, where all of that is
        # read, there would be 170 times to compare.
        if not (_toolkit.WINDOWS and place.count("/") > 1):
            self._note(source)
        found = [entry for entry in self._scan(source) if entry.name.startswith(start) and entry.name not in _PYTHON]
        entries = sorted((entry.name, entry.is_dir()) for entry in found)
        if entries:
            self.directory(place)
        if not start:
            self._placed.add(source)
        for name, is_directory in entries:
            inner, path = f"{place}/{name}", f"{source}/{name}"
            if is_directory and path in self._placed:
                continue
            if is_directory and (by_file or self._is_directory(inner)):
                self.directory(inner)
                self.merge(inner, path, "", by_file)
            else:
                self.content.setdefault(inner, path)

    def directory(self, place: str) -> None:
        """Make *place*, with all above it, a directory of the root's own; it shows what it showed as a link."""
        if "/" in place:
            self.directory(os.path.dirname(place))
        linked = self.content.setdefault(place, None)
        if isinstance(linked, str):
            self.content[place] = None
            self.merge(place, linked, "", False)

    def _scan(self, directory: str) -> "list[os.DirEntry[str]]":
        """List *directory*; nothing, if it does not exist. Raises OSError if it cannot be read: no half a root."""
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def add_linker_names(self) -> None:
        """Add libcudart.so for libcudart.so.13: of several versions, for the newest."""
        newest: dict[str, tuple[list[int], str]] = {}
        for place in self.content:
            directory, name = os.path.split(place)
            stem, _, version = name.partition(".so.")
            numbers = version.split(".")
            if directory in ("lib64", "nvvm/lib64") and all(number.isdecimal() for number in numbers):
                linker_name = f"{directory}/{stem}.so"
                newest[linker_name] = max(
                    newest.get(linker_name, ([], "")), ([int(number) for number in numbers], name)
                )
        for linker_name, (_, name) in newest.items():
            self.content.setdefault(linker_name, name)

    def stamp(self) -> bytes:
        """The times that each directory that was read may have, with its path, relative where it can be.

        Container layers keep whole seconds only, and environments get moved.
        """
        prefix = os.path.join(self._entries[0], "")
        records = []
        for path, made in self._times.items():
            times = (made, made // 10**9 * 10**9) if made < self._started - _TICK_NS else (_NEVER, _NEVER)
            records.append("{} {} {}".format(*times, path.removeprefix(prefix)))
        return os.fsencode("\0".join(["", *records]))  # the first says by which path to activate the root

    def _is_directory(self, place: str) -> bool:
        linked = self.content.get(place, b"")
        return linked is None or (isinstance(linked, str) and os.path.isdir(linked))

    def _note(self, directory: str) -> None:
        """Remember *directory*'s time, or that of the nearest above, which changes when *directory* appears."""
        while directory not in self._times:
            try:
                self._times[directory] = os.stat(directory).st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                above = os.path.dirname(directory)
                if above in self._entries:  # it changes with all that is installed, and with our own directory
                    self._times[directory] = False  # what current() finds where nothing is
                else:
                    directory = above


def _write(tree: str, content: "Content", entry: str) -> None:
    """Write *content* below *tree*, with relative links to what lies in *entry* if *tree* does so too.

    On Windows with hard links: symbolic ones take a privilege there.
    """
    prefix = os.path.join(entry, "")
    # An environment may be moved. From tree/bin three up is *entry*: out of bin, tree and our directory.
    climb = "../../" if tree.startswith(os.path.join(prefix, DIRECTORY)) else None
    os.mkdir(tree, 0o755)
    for place, what in content.items():
        path = os.path.join(tree, place)
        if what is None:
            os.mkdir(path, 0o755)
        elif isinstance(what, bytes):
            with open(os.open(path, _NEW, 0o644), "wb") as file:
                file.write(what)
        elif _toolkit.WINDOWS:
            os.link(what, path)
        elif climb and what.startswith(prefix):
            os.symlink(climb + "../" * place.count("/") + what[len(prefix) :], path)
        else:
            os.symlink(what, path)
    if not _toolkit.WINDOWS and os.stat(os.path.join(tree, "bin")).st_mode & 0o002:  # a file system without modes
        raise PermissionError(f"everybody could write to {tree}")


def _mark(tree: str, entry: str) -> None:
    """Make an empty file at the path of *entry* below *tree*/.site, by which the .pth file's line there knows its root.

    No other environment's line finds one, nor does any where the path of the root leads nowhere, or to another root.
    """
    path = tree + OF_SITE
    try:
        for name in entry.split("/")[:-1]:
            path = os.path.join(path, name)
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        os.close(os.open(tree + OF_SITE + entry, os.O_WRONLY | os.O_CREAT, 0o644))
    except OSError:
        pass  # too long a path: a child takes the way that its parent took
