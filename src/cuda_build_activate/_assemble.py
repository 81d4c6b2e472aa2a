"""Assemble the toolkit root: a tree of links to the wheels' files, with the layout of NVIDIA's installer.

Build tools insist on `lib64`, on unversioned linker names (`libcudart.so`), on `targets/` and on a version file. The
wheels have none of these. On Windows they lack most import libraries (`cublas.lib`), without which no DLL is linked.
"""

import os
import time

from cuda_build_activate import DIRECTORY, OF_SITE, STAMP, _toolkit
from cuda_build_activate._run_path import RESPONSE_FILE, response
from cuda_build_activate._stubs import driver_stubs
from cuda_build_activate._toolkit import PRODUCTS, Toolkit, components, toolkit_version, versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Maps each place in the root to the path that it links to, to a file's content, or to None: a real directory.
    Content = dict[str, "str | bytes | None"]


class Row:
    """A row of LAYOUT: what goes where.

    place: the directory in the root. source: the directory in a wheel. start: the prefix of the names that go there.
    by_file: whether to link each file instead of whole directories. seen: a wheel that has it, and its version.
    """

    __slots__ = ("by_file", "place", "seen", "source", "start")

    def __init__(self, place: str, source: str, *, start: str = "", by_file: bool = False, seen: str) -> None:
        self.place = place
        self.source = source
        self.start = start
        self.by_file = by_file
        self.seen = seen


# Of two files for one place, the first row's wins, then the first `sys.path` entry's.
LAYOUT = (
    # CCCL's CMake packages look for the headers relative to themselves. Linked file by file, they find the root's. In
    # the wheels, they find none from 13.2.75 on.
    Row("lib64/cmake", "lib/cmake", by_file=True, seen="nvidia-cuda-cccl 13.2.27"),  # and earlier
    Row("lib64/cmake", "cuda_cccl/lib/cmake", by_file=True, seen="nvidia-cuda-cccl 13.2.75"),  # and 13.2.86
    Row("lib64/cmake", "cccl/lib/cmake", by_file=True, seen="nvidia-cuda-cccl 13.3.3.3.1"),  # and later
    # nvcc finds the toolkit relative to the directory that it is called from: bin must be a directory, not a link.
    Row("bin", "bin", seen="nvidia-cuda-nvcc 13.4.92"),
    Row("include", "include", seen="nvidia-cuda-runtime 13.4.92"),
    Row("lib64", "lib", seen="nvidia-cuda-runtime 13.4.92"),
    Row("nvvm", "nvvm", by_file=True, seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/lib64", "lib", start="libnvvm.so", seen="nvidia-nvvm 13.4.92"),  # what nvcc -dlto opens
    Row("nvvm/include", "include", start="nvvm.h", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/bin", "bin", start="cicc", seen="nvidia-nvvm 13.0.48"),  # only this version
    Row("compute-sanitizer", "compute-sanitizer", seen="nvidia-cuda-sanitizer-api 13.4.92"),
)

# On Windows everything is linked file by file: hard links need no privilege, and directories cannot have any.
WINDOWS_LAYOUT = (
    Row("lib/cmake", "lib/cmake", seen="nvidia-cuda-cccl 13.0.85"),
    Row("lib/cmake", "cuda_cccl/lib/cmake", seen="nvidia-cuda-cccl 13.2.75"),
    Row("lib/cmake", "cccl/lib/cmake", seen="nvidia-cuda-cccl 13.3.3.3.1"),
    # Programs that load DLLs themselves look where CUDA 13's installer puts them, which the wheels name otherwise.
    Row("bin/x64", "bin/x86_64", seen="nvidia-cuda-runtime 13.4.92"),
    Row("bin", "bin", seen="nvidia-cuda-nvcc 13.4.92"),
    Row("include", "include", seen="nvidia-cuda-runtime 13.4.92"),
    Row("include", "cccl/include", seen="nvidia-cuda-cccl 13.3.4.2.1"),  # for arm64; only this version
    Row("lib", "lib", seen="nvidia-cuda-runtime 13.4.92"),
    Row("nvvm", "nvvm", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/bin", "bin/x86_64", start="nvvm64", seen="nvidia-nvvm 13.4.92"),  # what nvcc -dlto opens
    Row("nvvm/bin", "bin/arm64", start="nvvm64", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/include", "include", start="nvvm.h", seen="nvidia-nvvm 13.4.92"),
    Row("nvvm/bin", "bin", start="cicc", seen="nvidia-nvvm 13.0.48"),
)

# NVIDIA's name for each machine's directory in targets/.
TARGETS = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}

# If a directory changes within the tick of the file system's clock in which it was listed, its time may not change.
_TICK_NS = 50_000_000
_NEVER = -1  # no directory's time: the next start makes the root again
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # O_BINARY is only on Windows
_PYTHON = ("__init__.py", "__pycache__")  # in the directories of CUDA 12's components


def assemble(toolkit: Toolkit, tree: str) -> None:
    """Write *toolkit*'s root to *tree*, which must not exist. Raises OSError."""
    _write(tree, plan(toolkit), toolkit.entries[0])
    if not _toolkit.WINDOWS:  # a path with a drive cannot be repeated below another directory
        for entry in toolkit.entries:
            _mark(tree, os.path.normpath(entry))


def plan(toolkit: Toolkit) -> "Content":
    """The content of *toolkit*'s root, with the stamp that `current()` compares. Raises OSError."""
    root = _Root(toolkit.entries)
    directories = (*components(toolkit), *(product.path for product in PRODUCTS))
    windows = _toolkit.WINDOWS
    for row in WINDOWS_LAYOUT if windows else LAYOUT:
        for directory in directories:
            for entry in toolkit.entries:
                root.merge(row.place, os.path.join(entry, directory, row.source), row.start, row.by_file or windows)
    for place in ("bin", "include"):
        root.directory(place)
    if toolkit.nvcc:  # names this directory even without CCCL, and CMake insists on it
        root.content.setdefault("include/cccl", None)
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
    """A root being planned: its content, and the modification time of each directory that was read for it."""

    def __init__(self, entries: list[str]) -> None:
        self.content: Content = {}
        self._entries = entries
        self._times: dict[str, int] = {}
        self._started = time.time_ns()
        self._placed: set[str] = set()

    def merge(self, place: str, source: str, start: str, by_file: bool) -> None:
        """Make *place* show the entries of the directory *source*, if it exists, whose names begin with *start*.

        A directory that was merged as a whole is not shown again as a part of its parent.
        """
        # An installation that changes deeper directories also makes those above them anew. On Windows, where all are
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
        """Make *place* and its parents real directories; if it was a link, it shows the same entries as before."""
        if "/" in place:
            self.directory(os.path.dirname(place))
        linked = self.content.setdefault(place, None)
        if isinstance(linked, str):
            self.content[place] = None
            self.merge(place, linked, "", False)

    def _scan(self, directory: str) -> "list[os.DirEntry[str]]":
        """List *directory*, or nothing if it does not exist. Raises OSError if it is unreadable: no partial roots."""
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def add_linker_names(self) -> None:
        """Add libcudart.so for libcudart.so.13, and so on; of several versions, for the newest."""
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
        """For each directory that was read, the two times that it may have, and its path.

        Container layers keep only whole seconds. Paths are relative where possible, since environments get moved.
        """
        prefix = os.path.join(self._entries[0], "")
        records = []
        for path, made in self._times.items():
            times = (made, made // 10**9 * 10**9) if made < self._started - _TICK_NS else (_NEVER, _NEVER)
            records.append("{} {} {}".format(*times, path.removeprefix(prefix)))
        return os.fsencode("\0".join(["", *records]))  # the first field is for the stable path

    def _is_directory(self, place: str) -> bool:
        linked = self.content.get(place, b"")
        return linked is None or (isinstance(linked, str) and os.path.isdir(linked))

    def _note(self, directory: str) -> None:
        """Record *directory*'s time, or else its nearest existing parent's, which changes when *directory* appears."""
        while directory not in self._times:
            try:
                self._times[directory] = os.stat(directory).st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                above = os.path.dirname(directory)
                if above in self._entries:  # any installation changes it, and so does our own directory
                    self._times[directory] = False  # what current() finds for a missing path
                else:
                    directory = above


def _write(tree: str, content: "Content", entry: str) -> None:
    """Write *content* to *tree*, with relative links to what is in *entry* if *tree* is in it, too. Raises OSError.

    On Windows with hard links: symbolic links need a privilege there.
    """
    prefix = os.path.join(entry, "")
    # An environment may be moved. From tree/bin, *entry* is three levels up: out of bin, tree and our directory.
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
    if not _toolkit.WINDOWS and os.stat(os.path.join(tree, "bin")).st_mode & 0o002:  # a file system without permissions
        raise PermissionError(f"any user could write to {tree}")


def _mark(tree: str, entry: str) -> None:
    """Make an empty file at the path of *entry* below *tree*/.site, by which the .pth line there recognizes its root.

    Other environments' lines do not find it. Nor does any if the root's path leads nowhere, or to another root.
    """
    path = tree + OF_SITE
    try:
        for name in entry.split("/")[:-1]:
            path = os.path.join(path, name)
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        os.close(os.open(tree + OF_SITE + entry, os.O_WRONLY | os.O_CREAT, 0o644))
    except OSError:
        pass  # the path is too long: a child decides as its parent did
