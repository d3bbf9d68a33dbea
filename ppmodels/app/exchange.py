"""Two folders that exchange their names."""

import ctypes
import errno
import os
import sys
from pathlib import Path

from inference.training.files import temporary_name

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(first: Path, second: Path) -> None:
    """Gives two folders each other's name, at once where the system can (Linux, on most disks).

    Elsewhere the second is set aside for a moment under a hidden name that holds `.aside.`. Raises OSError; both then have
    the names that they had.
    """
    if sys.platform == "linux" and _at_once(first, second):
        return
    aside = second.with_name(temporary_name(f"{second.name}.aside"))
    second.rename(aside)
    try:
        first.rename(second)
    except OSError:
        aside.rename(second)
        raise
    aside.rename(first)


def _at_once(first: Path, second: Path) -> bool:
    """Whether the system and the disk could exchange the names in one step."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(second))
