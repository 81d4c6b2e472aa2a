"""Make the canonical toolkit root out of the wheels: once per environment, and again when its components change.

The root is a tree of links with the layout of a toolkit from NVIDIA's installer. Build tools insist on `lib64`, on
unversioned linker names (`libcudart.so`), on `targets/` and on a version file, and the wheels have none of them.
"""

import os
import time

from cuda_build_activate import DIRECTORY, STAMP
from cuda_build_activate._activate import HEADER, Toolkit, bases, is_private, is_usable, root_name
from cuda_build_activate._stubs import driver_stubs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    # By place in the root: what it links to, the content of a file, or None for a directory of the root's own.
    Content = dict[str, "str | bytes | None"]

# What goes where. Of two files for one place the first row's wins, then the first `sys.path` entry's.
LAYOUT = (
    # in the root      in a wheel              names starting with   link by file, not by directory
    # CCCL's CMake packages look for the headers relative to themselves: linked file by file they find the root's;
    # where they are installed they find none from 13.2.75 on.
    ("lib64/cmake", "lib/cmake", "", True),  # nvidia-cuda-cccl up to 13.2.27
    ("lib64/cmake", "cuda_cccl/lib/cmake", "", True),  # nvidia-cuda-cccl 13.2.75 and 13.2.86
    ("lib64/cmake", "cccl/lib/cmake", "", True),  # nvidia-cuda-cccl from 13.3 on
    # nvcc finds the toolkit from its own directory, and this from itself: bin must be a directory, not a link to one.
    ("bin", "bin", "", False),
    ("include", "include", "", False),
    ("lib64", "lib", "", False),
    ("nvvm", "nvvm", "", True),
    ("nvvm/lib64", "lib", "libnvvm.so", False),  # what nvcc -dlto opens
    ("nvvm/include", "include", "nvvm.h", False),
    ("nvvm/bin", "bin", "cicc", False),  # nvidia-nvvm 13.0.48
    ("compute-sanitizer", "compute-sanitizer", "", False),
)

# CUDA 11 and 12 have a directory per component (seen in nvidia-*-cu11 11.8 and nvidia-*-cu12 12.0 to 12.9), later ones
# one for all of them, nvidia/cu13.
COMPONENTS = (
    "nvidia/cuda_runtime",
    "nvidia/cuda_nvcc",
    "nvidia/cuda_cccl",
    "nvidia/cuda_cupti",
    "nvidia/cuda_cuxxfilt",
    "nvidia/cuda_nvrtc",
    "nvidia/cuda_opencl",
    "nvidia/cuda_profiler_api",
    "nvidia/cuda_sanitizer_api",
    "nvidia/cublas",
    "nvidia/cufft",
    "nvidia/cufile",
    "nvidia/curand",
    "nvidia/cusolver",
    "nvidia/cusparse",
    "nvidia/npp",
    "nvidia/nvfatbin",
    "nvidia/nvjitlink",
    "nvidia/nvjpeg",
    "nvidia/nvml_dev",
    "nvidia/nvtx",
)

# Products whose wheels lie beside the toolkit's directory, and the wheel that this was seen in.
PRODUCTS = (
    ("nvidia/cudnn", "nvidia-cudnn-cu13 9.28.0.42"),
    ("nvidia/nccl", "nvidia-nccl-cu13 2.32.3"),
    ("nvidia/nvshmem", "nvidia-nvshmem-cu13 3.8.0"),
    ("cutensor", "cutensor-cu13 2.8.1"),
)

# The directory below targets/ for a machine, by NVIDIA's name.
TARGETS = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}

# A change in the tick of the file system's clock in which a directory was listed can leave its time as it was.
_TICK_NS = 50_000_000
_NEVER = -1  # the time of no directory: what was read then is read again at the next start
_PYTHON = ("__init__.py", "__pycache__")  # in the directories of CUDA 12's components
_IN_USE_S = 600  # a tree that is younger may be in the making


def assemble(toolkit: Toolkit, environ: "Mapping[str, str]") -> str:
    """Make *toolkit*'s root where that is possible first, and return its path. Raises OSError if that is nowhere."""
    errors = []
    for base, private in bases(toolkit, environ):
        try:
            if private:
                for directory in (os.path.dirname(private), private):  # and no home directory that is not there
                    _make_directory(directory, 0o700)
                if not is_private(private):
                    raise PermissionError(f"{private} is not closed to other users")
            _make_directory(base, 0o755)
            if os.path.islink(base):
                raise OSError(f"{base} is a link")  # the root's relative links would climb out of it to somewhere else
            return _place(os.path.join(base, root_name(toolkit)), toolkit)
        except OSError as error:  # not writable, full, or a file system without links
            errors.append(str(error))
    raise OSError("; ".join(errors))


def plan(toolkit: Toolkit) -> "Content":
    """What *toolkit*'s root holds, with the stamp that `_activate.is_current` compares."""
    root = _Root(toolkit.entries)
    directories = (*components(toolkit), *(product for product, _ in PRODUCTS))
    for place, where, start, by_file in LAYOUT:
        for directory in directories:
            for entry in toolkit.entries:
                root.merge(place, os.path.join(entry, directory, where), start, by_file)
    for place in ("bin", "include", "lib64/stubs"):
        root.directory(place)
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
    installed = versions(toolkit.entries)
    version = _toolkit_version(toolkit, installed)
    if version:
        root.content["version.txt"] = f"CUDA Version {version}\n".encode()
        described = ",\n".join(
            f'  "{name}": {{"name": "{name}", "version": "{found}"}}'
            for name, found in {"cuda": version, **installed}.items()
        )
        root.content["version.json"] = f"{{\n{described}\n}}\n".encode()
    root.content[STAMP] = root.stamp()
    return root.content


def components(toolkit: Toolkit) -> tuple[str, ...]:
    """The directories, relative to a `sys.path` entry, that *toolkit*'s components may lie in."""
    return COMPONENTS if toolkit.major < 13 else (f"nvidia/cu{toolkit.major}",)


class _Root:
    """A root in the making: its content, and the time of each directory that this was read from."""

    def __init__(self, entries: list[str]) -> None:
        self.content: Content = {}
        self._entries = entries
        self._times: dict[str, int] = {}
        self._started = time.time_ns()

    def merge(self, place: str, source: str, start: str, by_file: bool) -> None:
        """Let *place* show those entries of the directory *source*, if it exists, whose names begin with *start*."""
        found = [entry for entry in self.scan(source) if entry.name.startswith(start) and entry.name not in _PYTHON]
        entries = sorted((entry.name, entry.is_dir()) for entry in found)
        if entries:
            self.directory(place)
        for name, is_directory in entries:
            inner, path = f"{place}/{name}", os.path.join(source, name)
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

    def scan(self, directory: str) -> "list[os.DirEntry[str]]":
        """List *directory*; nothing, if it does not exist. Raises OSError if it cannot be read: no half a root."""
        self._note(directory)
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
        return os.fsencode("\0".join(records))

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
                    self._times[directory] = False  # what is_current() finds where nothing is
                else:
                    directory = above


def versions(entries: list[str]) -> dict[str, str]:
    """The version of each NVIDIA distribution that is installed in *entries*, by its normalized name."""
    found: dict[str, str] = {}
    for entry in entries:
        try:
            names = sorted(os.listdir(entry))
        except OSError:
            continue
        for name in names:
            distribution, _, version = name.removesuffix(".dist-info").partition("-")
            ours = name.endswith(".dist-info") and distribution.startswith(("nvidia_", "cutensor"))
            if ours and distribution.isidentifier() and version.replace(".", "").replace("+", "").isalnum():
                found.setdefault(distribution, version)
    return found


def minor_version(version: str) -> str:
    """13.4 of 13.4.92."""
    return ".".join(version.split(".")[:2])


def _toolkit_version(toolkit: Toolkit, installed: "Mapping[str, str]") -> "str | None":
    """nvcc's version, or else the runtime's, or else what its header says."""
    suffix = f"_cu{toolkit.major}" if toolkit.major < 13 else ""
    for distribution in ("nvidia_cuda_nvcc", "nvidia_cuda_runtime"):
        if installed.get(distribution + suffix, "").startswith(f"{toolkit.major}."):
            return installed[distribution + suffix]
    try:
        with open(os.path.join(toolkit.wheels, "include", HEADER), "rb") as header:
            number = int(header.read().split(b"#define CUDART_VERSION", 1)[1].split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return None
    return f"{number // 1000}.{number % 1000 // 10}.0"


def _place(root: str, toolkit: Toolkit) -> str:
    """Make the root whole under a name of its own, then let *root* point at that in one step; return *root*."""
    base, name = os.path.split(root)
    tree = os.path.join(base, f".{name}.{os.getpid()}.{time.time_ns():x}")
    link, copy = f"{tree}.link", f"{tree}.copy"
    replaced = ""
    try:
        _write(tree, plan(toolkit), toolkit.entries[0])
        if is_usable(root, toolkit.entries[0]):  # another process was faster, and more may use its root already
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


def _write(tree: str, content: "Content", entry: str) -> None:
    """Write *content* below *tree*, with relative links to what lies in *entry* if *tree* does so too."""
    prefix = os.path.join(entry, "")
    # An environment may be moved. From tree/bin three up is *entry*: out of bin, tree and our directory.
    climb = "../../" if tree.startswith(os.path.join(prefix, DIRECTORY)) else None
    os.mkdir(tree, 0o755)
    for place, what in content.items():
        path = os.path.join(tree, place)
        if what is None:
            os.mkdir(path, 0o755)
        elif isinstance(what, bytes):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                file.write(what)
        elif climb and what.startswith(prefix):
            os.symlink(climb + "../" * place.count("/") + what[len(prefix) :], path)
        else:
            os.symlink(what, path)
    if os.stat(os.path.join(tree, "bin")).st_mode & 0o002:  # a file system without modes
        raise PermissionError(f"everybody could write to {tree}")


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
