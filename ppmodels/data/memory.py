"""What data files declare is held against the memory that is there, before any of it is allocated."""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

OF_LEVEL, OF_NUMBER = 3, 34
"""The bytes that a value takes, beside those that a file declares for it, while it is converted and split: measured."""


class TooLarge(ValueError):
    """A file declares more than memory takes."""


def available() -> int:
    """The bytes of memory that this process can still take; without bound where the system does not tell."""
    return min(_of_the_system(), _of_the_group(), _of_the_process())


def room_for(each: int) -> int:
    """How many values of so many bytes each the memory takes that is there."""
    return available() // each


def refuse_beyond(path: Path, what: str, size: int, working: int) -> None:
    """Raises TooLarge, naming both sizes, where a file's bytes and those of the work on them are more than there are."""
    free = available()
    if size + working > free:
        raise TooLarge(
            f"{path}: {what} {size:,} bytes, which need {size + working:,} bytes of memory to be read, and {free:,} are "
            "available; give fewer or smaller examples"
        )


def _of_the_system() -> int:
    with suppress(OSError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def _of_the_group() -> int:
    """What a container's limit leaves; what files are kept in memory counts as free, as it is given up on demand."""
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        kept = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        used = int((group / "memory.current").read_text()) - (int(kept[1]) if kept else 0)
        return int((group / "memory.max").read_text()) - used
    return sys.maxsize


def _of_the_process() -> int:
    """What `ulimit -v` and `ulimit -d` leave."""
    left = sys.maxsize
    with suppress(ImportError, OSError, ValueError):
        import resource

        for kind, taken in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            limit = resource.getrlimit(kind)[0]
            used = re.search(rf"^{taken}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
            if limit != resource.RLIM_INFINITY and used:
                left = min(left, limit - int(used[1]) * 1024)
    return left
