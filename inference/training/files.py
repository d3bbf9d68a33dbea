"""Files of a run: read only where they are files of the folder itself, and written whole."""

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path


def contents_of(path: Path) -> bytes:
    """The contents of a file, which is no link: a folder that someone sent must not lead to other places.

    Raises FileNotFoundError where there is nothing, ValueError where a link, a folder or a device has that name.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; restore it, or train again.") from None
    if stat.S_ISLNK(kind):
        raise ValueError(f"{path} is a link, and links in a run are not followed. Put the file itself in its place.")
    if not stat.S_ISREG(kind):
        raise ValueError(f"{path}: expected a file, got a {'folder' if stat.S_ISDIR(kind) else 'device or a pipe'}.")
    with open(path, "rb", opener=_unfollowed) as file:
        return file.read()


def _unfollowed(path: str, flags: int) -> int:
    """Opens neither a link nor, waiting for its writer, a pipe that has come in the place of what was looked at."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def write_whole(path: Path, contents: bytes) -> None:
    """Writes a file so that it is never seen half written. A link of that name is replaced, and not followed.

    Raises OSError with the file's name.
    """
    write_together(path.parent, {path.name: contents})


def write_together(folder: Path, files: Mapping[str, bytes | Iterable[bytes] | None]) -> None:
    """Writes files that belong together, by name, and removes those of None: all of them, or none where one can not be.

    Contents that come in parts are written as they come, so that no more than a part is held.

    Raises OSError with the name of the file that it is about.
    """
    written: dict[str, Path] = {}
    name = ""
    try:
        for name, contents in files.items():
            if (folder / name).is_dir() and not (folder / name).is_symlink():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if contents is not None:
                temporary = folder / temporary_name(name)
                # O_EXCL opens nothing that somebody else has put there, no link either.
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                    written[name] = temporary
                    file.writelines([contents] if isinstance(contents, bytes) else contents)
        for name in files.keys() - written.keys():
            (folder / name).unlink(missing_ok=True)
        for name, temporary in written.items():
            os.replace(temporary, folder / name)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder / name)) from error
    finally:
        for temporary in written.values():
            with suppress(OSError):  # on a disk that is read only even for a name that is not there
                temporary.unlink(missing_ok=True)


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a folder of files so that it is never seen half written, and is on the disk when it has its name.

    A folder that has that name is replaced, and its files of these names are removed; others are kept, under a hidden
    name. Raises OSError with the folder's name.
    """
    temporary, aside = (path.with_name(temporary_name(path.name)) for _ in range(2))
    try:
        temporary.mkdir()
        for name, each in contents.items():
            with open(temporary / name, "xb") as file:
                file.write(each)
                file.flush()
                os.fsync(file.fileno())
        _synchronise(temporary)
        if os.path.lexists(path):
            path.rename(aside)
        try:
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                aside.rename(path)
            raise
        _synchronise(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        for leftover in (temporary, aside):
            with suppress(OSError):
                for name in contents:
                    (leftover / name).unlink(missing_ok=True)
                leftover.rmdir()


def _synchronise(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can tell."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flocked(descriptor: int) -> bool:
    """Whether the lock on an open file is this process's now; so it is where the system or the disk knows no locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return True


def temporary_name(name: str) -> str:
    """A hidden name beside another one, which nobody can predict."""
    return f".{name}.{secrets.token_hex(4)}"


def is_temporary(found: str, name: str) -> bool:
    """Whether a name is a temporary one of a file; earlier versions ended it by the number of a process."""
    start, _, end = found.rpartition(".")
    return start == f".{name}" and re.fullmatch(r"[0-9a-f]{8}|[0-9]+", end) is not None
