"""The commands audit and repair: what the user types and reads."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Callable

from cuda_build_activate import _audit, _repair, _wheel
from cuda_build_activate._audit import Report
from cuda_build_activate._doctor import Finding
from cuda_build_activate._wheel import UnreadableError

Show = Callable[[Finding], list[str]]


def audit(options: argparse.Namespace, write: Callable[[str], None], shown: Show) -> int:
    """Print what is wrong with wheels. Returns 0 without errors, 1 with errors, 2 if a wheel could not be read."""
    reports, unread = [], False
    for name in options.wheels:
        try:
            read = _wheel.read_installed if options.installed else _wheel.read_wheel
            reports.append(_audit.audit(read(name, _progress)))
        except UnreadableError as error:
            unread = _complain(error)
    unsound = not all(report.healthy for report in reports)
    if options.requirements or options.exclude:
        try:
            write("".join(f"{line}\n" for line in _lists(options, reports)))
        except ValueError as error:
            unread = _complain(error)
        unsound = False  # these two options do not report findings
    elif options.json:
        described = {"schema": 1, "healthy": not (unsound or unread), "wheels": [*map(_audit.described, reports)]}
        write(json.dumps(described, indent=2) + "\n")
    else:
        for report in reports:
            lines = [*_audit.lines(report), *(line for finding in report.findings for line in shown(finding))]
            write("\n".join(lines if report.findings else [*lines, "nothing is wrong"]) + "\n")
    return 2 if unread else int(unsound)


def _lists(options: argparse.Namespace, reports: list[Report]) -> Iterator[str]:
    if options.requirements:
        yield from dict.fromkeys(line for report in reports for line in _audit.requirements(report))
    else:
        names = dict.fromkeys(name for report in reports for name in _audit.excluded(report))
        yield " ".join(f"--exclude {name}" for name in names)


def repair(options: argparse.Namespace, write: Callable[[str], None]) -> int:
    """Write repaired wheels. Returns 0 if all were, 1 if one cannot be repaired, 2 if one could not be read."""
    status = 0
    for path in options.wheels:
        try:
            target, changes = _repair.repair(path, options.wheel_dir, _progress)
        except UnreadableError as error:
            _complain(error)
            status = 2
        except (_repair.UnrepairableError, OSError) as error:
            _complain(f"{path}: not repaired: {error}")
            status = max(status, 1)
        else:
            write(
                "\n".join([target, *(f"  {change}" for change in changes or ["nothing was wrong: copied as is"])])
                + "\n"
            )
    return status


def _complain(said: object) -> bool:
    sys.stderr.write(f"cuda-build-activate: {said}\n")
    return True


def _progress(name: str, done: int, total: int) -> None:
    """Show the progress on a terminal; with an empty *name*, erase it."""
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # 0 if unknown
        line = f"{100 * done // max(total, 1):3d} % {name}"[: width - 1] if name else ""
        sys.stderr.write(f"\r\033[K{line}")
        sys.stderr.flush()
