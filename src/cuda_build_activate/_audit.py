"""Whether a wheel will find its CUDA libraries where it is installed: findings, as data."""

import importlib.metadata
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Union

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from cuda_build_activate import _libraries, _wheel
from cuda_build_activate._doctor import Finding
from cuda_build_activate._libraries import DRIVER, LIBRARIES, Library
from cuda_build_activate._wheel import Distribution, File

# The name of a requirement that may itself require CUDA's libraries, if it is not installed here.
_MAY_REQUIRE_CUDA = re.compile(r"cu\d\d|cuda|cupy|jax|nvidia|rapids|torch")
_MOST = 3  # names that a finding lists


class Need(NamedTuple):
    """A library of CUDA that a file needs.

    owners: the rows of LIBRARIES that may have it; of several distributions, if it is unknown which. required: the
    requirement that will install it, or "". found: why the loader finds it, or "".
    """

    soname: str
    owners: list[Library]
    required: str
    found: str

    @property
    def is_versioned(self) -> bool:
        """Whether the soname tells which versions of the distribution have it."""
        return ".so." in self.soname or not self.owners[0].loads

    @property
    def distribution(self) -> str:
        """The distribution that has it; several, joined by "or", if it is unknown which."""
        return " or ".join(dict.fromkeys(row.distribution for row in self.owners))


class Judgement(NamedTuple):
    """What does not depend on the file in a `Finding`; "{}" in the remedy stands for the requirements."""

    code: str
    severity: str
    why: str
    remedy: str


class Report(NamedTuple):
    """The result of an audit. cuda: the CUDA major version that the wheel was built with, or None if unknown."""

    distribution: Distribution
    cuda: Union[int, None]
    needs: dict[str, list[Need]]  # by file name
    not_required: list[tuple[File, Need]]  # what nothing installs, but something should
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


def audit(distribution: Distribution) -> Report:
    """Find out what *distribution* needs of CUDA, and what is wrong."""
    cuda = _cuda(distribution)
    provided = _Provided(distribution.required)
    needs = _needs(distribution, cuda, provided)
    judged = [
        (judgement, need, file)
        for file in distribution.files
        for need in needs.get(file.name, ())
        if (judgement := _judged(distribution, file, need, provided))
    ]
    findings = [
        *_requirements(judged),
        *_run_paths(distribution, needs),
        *_elsewhere(distribution),
        *_bundled(distribution),
        *_driver(distribution),
    ]
    not_required = [
        (file, need)
        for judgement, need, file in judged
        if judgement.code == "not-required" and judgement.severity == "error"
    ]
    return Report(distribution, cuda, needs, not_required, findings)


def directories(file: File) -> list[str]:
    """Where the loader looks for what *file* needs, relative to site-packages: the relative part of its run path."""
    place = posixpath.dirname(file.place)
    return [
        posixpath.normpath(posixpath.join(place, re.sub(r"^\$(ORIGIN|\{ORIGIN\})/?", "", entry)))
        for entry in file.elf.run_path
        if is_relative(entry)
    ]


def is_relative(entry: str) -> bool:
    """Whether *entry*, of a run path, is relative to the file that has it."""
    return re.match(r"\$(ORIGIN|\{ORIGIN\})(/|$)", entry) is not None


def requirement(need: Need) -> str:
    """The requirement to declare for *need*; if its owner is unknown, all candidates, joined by "or"."""
    return " or ".join(dict.fromkeys(f'"{_line(need, row)}"' for row in need.owners))


def _line(need: Need, row: Library) -> str:
    """The requirement to declare for *need*, if it is the library of *row*.

    It starts at the minor version that is installed here, where the wheel was built: a library may have functions that
    earlier ones lack. If none is installed, it names the major version, which the soname implies.
    """
    try:
        installed = Version(importlib.metadata.version(row.distribution)).release
    except (importlib.metadata.PackageNotFoundError, ValueError):
        installed = ()
    if not need.is_versioned:  # each version may have another interface under the same soname
        return f"{row.distribution}=={installed[0]}.{installed[1]}.*" if len(installed) > 1 else row.distribution
    if installed[:1] == (row.version,):
        return f"{row.distribution}>={'.'.join(map(str, installed[:2]))},<{row.version + 1}"
    return f"{row.distribution}=={row.version}.*"


class _Provided:
    """What will be installed with a distribution that requires *required*, as far as that is known here.

    by: the requirement that brings each distribution, by its name. direct: *required*, by name. unknown: the
    requirements that may bring more.
    """

    def __init__(self, required: list[Requirement]) -> None:
        self.by: dict[str, str] = {}
        self.direct = {canonicalize_name(one.name): one for one in required}
        self.unknown: list[str] = []
        queue = [(one, str(one).partition(";")[0].strip()) for one in required]
        seen = set()
        while queue:
            one, by = queue.pop(0)
            name = canonicalize_name(one.name)
            if (name, *one.extras) in seen:
                continue
            seen.add((name, *one.extras))
            self._add(name, by)
            if name == "cuda-toolkit":
                for row in _libraries.metapackage(one.extras):
                    if _allows(one.specifier, row.cuda):
                        self._add(row.distribution, by)
                continue
            if name == "torch":  # its build decides for which CUDA
                for row in LIBRARIES:
                    if any(_libraries.base(row.distribution) == brought.distribution for brought in _libraries.TORCH):
                        self._add(row.distribution, by)
            try:
                lines = importlib.metadata.requires(name) or []
                queue += [(more, by) for more in _wheel.requirements(lines, one.extras)[0]]
            except importlib.metadata.PackageNotFoundError:
                if _may_bring_more(name, one.extras):
                    self.unknown.append(by)

    def _add(self, distribution: str, by: str) -> None:
        if distribution in self.by:
            return
        self.by[distribution] = by
        for row in LIBRARIES:
            if row.distribution == distribution:
                for name in _libraries.REQUIRED.get(_libraries.base(distribution), ()):
                    for other in LIBRARIES:
                        if other.cuda == row.cuda and _libraries.base(other.distribution) == name:
                            self._add(other.distribution, by)

    def torch_loads(self, row: Library) -> bool:
        """Whether every version of torch that is allowed loads *row*'s libraries on import."""
        torch = self.direct.get(canonicalize_name("torch"))
        for brought in _libraries.TORCH:
            if brought.distribution == _libraries.base(row.distribution) and brought.loaded is not None:
                return _implies(torch.specifier if torch else SpecifierSet(), SpecifierSet(brought.loaded))
        return False


def _may_bring_more(name: str, extras: Iterable[str]) -> bool:
    """Whether the distribution *name*, which is not installed here, may have unknown requirements of CUDA."""
    known = name == "torch" or any(name == row.distribution and not row.loads for row in LIBRARIES)
    return not known and (name not in _libraries.BRING_NONE or bool(extras)) and bool(_MAY_REQUIRE_CUDA.search(name))


def _allows(specifier: SpecifierSet, major: int) -> bool:
    """Whether *specifier* allows a version with that *major* number."""
    for one in specifier:
        version = Version(one.version.removesuffix(".*"))
        if one.operator in ("==", "===", "~=") and version.major != major:
            return False
        if one.operator in (">=", ">") and version.major > major:
            return False
        if one.operator in ("<", "<=") and version <= Version(str(major)):
            return False
    return True


def _implies(specifier: SpecifierSet, other: SpecifierSet) -> bool:
    """Whether *other* allows every version of torch that *specifier* allows."""
    named = [one.version.removesuffix(".*") for one in specifier]
    versions = [*named, *(f"2.{minor}" for minor in range(100)), *(f"2.{minor}.1" for minor in range(100))]
    return all(other.contains(version) for version in versions if specifier.contains(version, prereleases=True))


def _cuda(distribution: Distribution) -> Union[int, None]:
    """The CUDA major version that *distribution* was built with, by the first evidence that names just one; or None."""
    names = [distribution.name, distribution.version, *(str(one) for one in distribution.required)]
    required = {canonicalize_name(one.name) for one in distribution.required}
    for guesses in (
        [_by_sonames(file) for file in distribution.files],
        [int(found) for name in names[:2] for found in re.findall(r"cu(?:da)?-?(1[1-9])", name)],
        [
            int(found)
            for file in distribution.files
            for found in re.findall(r"/nvidia/cu(1\d)/", ":".join(file.elf.run_path))
        ],
        [row.cuda for row in LIBRARIES if row.distribution in required],
        [
            cuda
            for one in distribution.required
            if canonicalize_name(one.name) == "cuda-toolkit"
            for cuda in (11, 12, 13)
            if _allows(one.specifier, cuda)
        ],
        [int(found) for name in names[2:] for found in re.findall(r"^[\w-]+-cu(1[1-9])\b", name)],
        [row.cuda for row in LIBRARIES if _is_installed(row.distribution)],
    ):
        majors = {guess for guess in guesses if guess}
        if len(majors) == 1:
            return majors.pop()
    return None


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _by_sonames(file: File) -> Union[int, None]:
    """The only CUDA major version that has all libraries that *file* needs; None if there is not exactly one."""
    majors = [{row.cuda for row in _libraries.owners(soname)} - {0} for soname in file.elf.needed]
    common = set.intersection(*(some for some in majors if some)) if any(majors) else set()
    return common.pop() if len(common) == 1 else None


def _needs(distribution: Distribution, cuda: Union[int, None], provided: _Provided) -> dict[str, list[Need]]:
    own = {posixpath.basename(file.place) for file in distribution.files}
    found = {}
    for file in distribution.files:
        version = _by_sonames(file) or cuda
        needs = []
        for soname in file.elf.needed:
            rows = _libraries.owners(soname)
            if rows and soname not in own and not DRIVER.fullmatch(soname):
                rows = [row for row in rows if row.cuda in (0, version)] or rows
                required = next((provided.by[row.distribution] for row in rows if row.distribution in provided.by), "")
                needs.append(Need(soname, rows, required, _found(file, rows, provided)))
        if needs:
            found[file.name] = needs
    return _inherited(distribution, found)


def _found(file: File, rows: list[Library], provided: _Provided) -> str:
    if any(row.directory in directories(file) for row in rows):
        return "the run path leads there"
    if any(row.loads for row in rows):
        return f"{rows[0].distribution} loads it"
    needs_torch = any(row.distribution == "torch" for soname in file.elf.needed for row in _libraries.owners(soname))
    if needs_torch and any(provided.torch_loads(row) for row in rows):
        return "torch loads it"
    return ""


def _inherited(distribution: Distribution, needs: dict[str, list[Need]]) -> dict[str, list[Need]]:
    """*needs*; those of a file also count as found if all that load it have loaded them, or have an RPATH to them."""
    loaders: dict[str, list[File]] = {}
    for file in distribution.files:
        for other in distribution.files:
            if {file.elf.soname, posixpath.basename(file.place)} & set(other.elf.needed):
                loaders.setdefault(file.name, []).append(other)

    def reaches(file: File, need: Need) -> bool:
        has_loaded = any(other.soname == need.soname and other.found for other in needs.get(file.name, ()))
        return has_loaded or (file.elf.inherited and any(row.directory in directories(file) for row in need.owners))

    return {
        name: [
            need._replace(found="what loads this file has loaded it before")
            if not need.found and name in loaders and all(reaches(file, need) for file in loaders[name])
            else need
            for need in found
        ]
        for name, found in needs.items()
    }


def _sonames(needs: Iterable[Need]) -> str:
    """The sonames by distribution: libcublas.so.13, libcublasLt.so.13 from nvidia-cublas; libnccl.so.2 from ..."""
    groups: dict[str, list[str]] = {}
    for need in needs:
        groups.setdefault(need.distribution, []).append(need.soname)
    return "; ".join(f"{_some(sonames)} from {owner}" for owner, sonames in groups.items())


def _some(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")


def _requirements(judged: list[tuple[Judgement, Need, File]]) -> Iterator[Finding]:
    groups: dict[Judgement, list[tuple[Need, File]]] = {}
    for judgement, need, file in judged:
        groups.setdefault(judgement, []).append((need, file))
    for judgement, found in groups.items():
        lines = ", ".join(dict.fromkeys(requirement(need) for need, _ in found))
        seen = f"{_sonames(need for need, _ in found)}: needed by {_some(file.place for _, file in found)}"
        yield Finding(judgement.code, judgement.severity, seen, judgement.why, judgement.remedy.format(lines))


def _judged(distribution: Distribution, file: File, need: Need, provided: _Provided) -> Union[Judgement, None]:
    """What is wrong with how *need* is required, if anything."""
    names = {canonicalize_name(row.distribution) for row in need.owners}
    if need.required:
        direct = [provided.direct[name] for name in names & provided.direct.keys()]
        if all(_allows(one.specifier, row.version) for one in direct for row in need.owners if need.is_versioned):
            return None
        why = f"no version that {direct[0]} allows has it"
        return Judgement("wrong-requirement", "error", why, "require {} instead")
    if need.found == "torch loads it" and "torch" not in names:  # that torch itself is not required is another finding
        return None
    optional = [str(one) for one in distribution.optional if names & _Provided([one]).by.keys()]
    if optional:
        why = f"only an extra installs it: {optional[0]}"
        return Judgement("only-with-extra", "warning", why, "require {}, or document the extra")
    if provided.unknown:
        why = f"it is unknown whether {_some(provided.unknown)} will install it: not installed here"
        remedy = "to find out, audit where the requirements are installed; or require {}"
        return Judgement("maybe-required", "note", why, remedy)
    why = "nothing that the wheel requires installs it"
    loader = "" if need.owners[0].loads else _loader(distribution, need)
    if loader:
        why = f"{why}; {loader} looks for it"
        return Judgement("not-required", "warning", why, "require {}, or document that it is optional")
    return Judgement("not-required", "error", why, "require {}, or run cuda-build-activate repair")


def _run_paths(distribution: Distribution, needs: dict[str, list[Need]]) -> Iterator[Finding]:
    groups: dict[str, list[tuple[Need, File]]] = {}
    for file in distribution.files:
        for need in needs.get(file.name, ()):
            if not need.found:
                groups.setdefault(_loaded_first(distribution, file, need), []).append((need, file))
    for evidence, found in groups.items():
        seen = (
            f"{_sonames(need for need, _ in found)}, in {_some(need.owners[0].directory for need, _ in found)}: "
            f"the run path of {_some(file.place for _, file in found)} does not lead there"
        )
        paths = _some(origin(file.place, need.owners[0].directory) for need, file in found)
        remedy = f"link with -rpath {paths}, or run cuda-build-activate repair"
        if evidence:
            yield Finding("loaded-first", "note", seen, f"it works only after {evidence}", remedy)
        else:
            yield Finding("run-path-misses", "error", seen, "the loader finds it only where CUDA is installed", remedy)


def origin(place: str, directory: str) -> str:
    """The run path that leads from the file at *place* to *directory*."""
    relative = posixpath.relpath(directory, posixpath.dirname(place) or ".")
    return "$ORIGIN" if relative == "." else f"$ORIGIN/{relative}"


def _loaded_first(distribution: Distribution, file: File, need: Need) -> str:
    """What may have loaded *need* before *file* is loaded, in words; "" if nothing is known."""
    if {row.directory for row in LIBRARIES if not row.loads} & set(directories(file)):
        return ""  # its run path does lead to CUDA, but not to this
    rows = {_libraries.base(row.distribution) for row in need.owners}
    if any(one.distribution in rows and one.loaded == "" for one in _libraries.TORCH) and any(
        canonicalize_name(one.name) == "torch" for one in distribution.required
    ):
        return "torch was imported"
    loader = _loader(distribution, need)
    if loader:
        return f"{loader} has loaded it"
    carriers = [soname for soname in file.elf.needed if any(row.loads for row in _libraries.owners(soname))]
    return f"what loads {_some(carriers)} has loaded it" if carriers and "libtorch.so" not in carriers else ""


def _loader(distribution: Distribution, need: Need) -> str:
    """The Python file that may load *need*: it loads libraries, and names this one or uses cuda.pathfinder."""
    stem = re.sub(r"^lib|\.so.*$", "", need.soname)
    for place, text in distribution.loaders.items():
        if "load_nvidia_dynamic_lib" in text or re.search(rf"\b(lib)?{re.escape(stem)}\b", text, re.IGNORECASE):
            return place
    return ""


def _elsewhere(distribution: Distribution) -> Iterator[Finding]:
    found = [
        (entry, file.place) for file in distribution.files for entry in file.elf.run_path if not is_relative(entry)
    ]
    if found:
        entries = _some(entry or "the current directory (an empty entry)" for entry, _ in found)
        seen = f"the run path of {_some(place for _, place in found)} leads to {entries}"
        why = "another machine has other libraries there, or none"
        yield Finding("run-path-elsewhere", "warning", seen, why, "link without it, or run cuda-build-activate repair")


def _bundled(distribution: Distribution) -> Iterator[Finding]:
    found = []
    for file in distribution.files:
        owners = {row.distribution for row in _libraries.copied(posixpath.basename(file.place))}
        if owners and distribution.name not in owners:
            found.append(file)
    if found:
        megabytes = sum(file.size for file in found) / 1e6
        seen = f"copies of CUDA's libraries, {megabytes:.0f} MB: {_some(file.place for file in found)}"
        why = "other packages in the same process may load the same libraries from CUDA's own wheels"
        remedy = "to use those, run auditwheel repair with the options from audit --exclude, and require them"
        yield Finding("bundled", "note", seen, why, remedy)


def _driver(distribution: Distribution) -> Iterator[Finding]:
    sonames = {
        soname: file.place for file in distribution.files for soname in file.elf.needed if DRIVER.fullmatch(soname)
    }
    if sonames:
        seen = f"{_some(sorted(sonames))}: needed by {_some(sonames.values())}"
        why = "only NVIDIA's driver has it, never a wheel: without the driver, this does not load"
        yield Finding("needs-driver", "note", seen, why, "nothing, if the wheel is for machines with a GPU")


def requirements(report: Report) -> list[str]:
    """The requirements that *report*'s wheel should declare for CUDA. Raises ValueError if one is unknown."""
    lines = set()
    for needs in report.needs.values():
        for need in needs:
            if " or " in need.distribution:
                raise ValueError(f"{need.soname} is in {need.distribution}: install here the one it was built with")
            if not need.required or canonicalize_name(Requirement(need.required).name) != "torch":
                lines.add(_line(need, need.owners[0]))
    return sorted(lines)


def excluded(report: Report) -> list[str]:
    """The sonames that auditwheel should leave out of *report*'s wheel."""
    driver = [name for file in report.distribution.files for name in file.elf.needed if DRIVER.fullmatch(name)]
    return sorted({*driver, *(need.soname for needs in report.needs.values() for need in needs)})


def described(report: Report) -> dict[str, Any]:
    """*report* for ``--json``."""
    return {
        "name": report.distribution.label,
        "distribution": report.distribution.name,
        "version": report.distribution.version,
        "healthy": report.healthy,
        "cuda": report.cuda,
        "files": [
            {
                "path": file.place,
                "machine": file.elf.machine,
                "soname": file.elf.soname or None,
                "run_path": list(file.elf.run_path),
                "needs": [
                    {
                        "soname": need.soname,
                        "distributions": list(dict.fromkeys(row.distribution for row in need.owners)),
                        "required_by": need.required or None,
                        "found": need.found or None,
                    }
                    for need in report.needs.get(file.name, [])
                ],
                "driver": [soname for soname in file.elf.needed if DRIVER.fullmatch(soname)],
                "device_code": list(file.elf.device_code),
            }
            for file in report.distribution.files
        ],
        "findings": [finding._asdict() for finding in report.findings],
    }


def lines(report: Report) -> Iterator[str]:
    """*report* as text, without its findings; files with the same needs and device code are listed together."""
    yield report.distribution.label + (f": CUDA {report.cuda}" if report.cuda else "")
    groups: dict[tuple[str, ...], list[str]] = {}
    for file in report.distribution.files:
        said = [
            f"    {need.soname} from {need.distribution}: "
            f"{f'required by {need.required}' if need.required else 'not required'}; "
            f"{need.found or 'the run path does not lead there'}"
            for need in report.needs.get(file.name, [])
        ]
        if file.elf.device_code:
            said.append(f"    device code: {' '.join(file.elf.device_code)}")
        if said:
            groups.setdefault(tuple(said), []).append(file.place)
    for content, places in groups.items():
        yield f"  {_some(places)}"
        yield from content
