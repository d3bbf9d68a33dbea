"""What a child does: it is forked off a process that has imported everything and computed nothing."""

import ctypes
import io
import os
import resource
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path

import torch
import typer

from ppmodels.app.cli import main
from ppmodels.app.cli.printing import clean
from ppmodels.app.streams import forgive
from tests.faults.case import USUAL, Case, System

for _name in ("matplotlib.figure", "PIL.Image", "pyro", "ppmodels.app", "ppmodels.app.report"):
    import_module(_name)  # once, for all children

IMPORTED_BY = os.getpid()
NOT_TO_BE_HAD = 77
"""The exit code where this system can not be made to fail in that way."""


def born(module: str, place: int, folder: str, beside: str) -> None:
    """Does what a row says, in its folder; what it prints goes into files beside it."""
    assert os.getpid() != IMPORTED_BY, "it was not forked"
    case: Case = import_module(module).CASES[place]
    os.setsid()
    _enter(case.system, Path(folder), Path(beside))
    _ended(case.does)


def trained(command: str, folder: str, beside: str) -> None:
    """A command line under the usual system."""
    _enter(USUAL, Path(folder), Path(beside))
    _ended(command)


def _ended(does: object) -> None:
    if callable(does):
        forgive()
        try:
            with clean():
                does()
        except typer.Exit as ended:
            sys.exit(ended.exit_code)
        return
    for command in (does,) if isinstance(does, str) else does:  # type: ignore[attr-defined]  # a sequence of texts
        sys.argv = ["ppmodels", *shlex.split(command)]
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise


def _enter(system: System, folder: Path, beside: Path) -> None:
    torch.set_num_threads(1)
    os.chdir(folder / system.folder)
    os.environ |= {
        "PPMODELS_TRUSTED": str(beside / "trusted"),
        "HOME": str(beside),
        "COLUMNS": "80",
        "TMPDIR": str(beside),
    }
    os.environ |= system.environment
    if system.disk:
        _mount(system.disk, folder / "disk")
    for number, name, kind in ((1, "stdout", system.out), (2, "stderr", system.err)):
        setattr(sys, name, _stream(number, beside / name, kind, system.encoding))
    if system.unprivileged and os.geteuid() == 0:
        _give_up_rights()
    if system.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (system.file_size, system.file_size))
    if system.files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (system.files, system.files))
    if system.memory is not None:
        lines = Path("/proc/self/status").read_text().splitlines()
        used = next(int(line.split()[1]) for line in lines if line.startswith("VmData"))
        limit = used * 1024 + system.memory * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _stream(number: int, path: Path, kind: str, encoding: str) -> io.TextIOWrapper | None:
    if kind == "closed":
        os.close(number)
        return None
    if kind == "broken":
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open("/dev/full" if kind == "full" else path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, number)
    os.close(descriptor)
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding=encoding, write_through=True)


def _give_up_rights() -> None:
    """Root without its capabilities: permissions hold for it, too."""
    version_3 = 0x20080522
    header, none_left = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capset(header, none_left):
        os._exit(NOT_TO_BE_HAD)


def _mount(kind: str, place: Path) -> None:
    """Mounts a disk that only this process sees."""
    new_namespace, private, read_only, remount = 0x20000, 1 << 18 | 1 << 14, 1, 1 << 5
    libc = ctypes.CDLL(None, use_errno=True)
    copy = place.with_name("of-the-disk")
    if place.exists():
        shutil.copytree(place, copy)
    place.mkdir(exist_ok=True)
    size = b"size=64k" if kind == "full" else b"size=64m"
    made = (
        libc.unshare(new_namespace) == 0
        and libc.mount(b"none", b"/", None, private, None) == 0
        and libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, size) == 0
    )
    if not made:
        os._exit(NOT_TO_BE_HAD)
    if copy.exists():
        shutil.copytree(copy, place, dirs_exist_ok=True)
        shutil.rmtree(copy)
    if kind == "read-only" and libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", read_only | remount, None):
        os._exit(NOT_TO_BE_HAD)
