"""Which recipe files may be executed: those whose text this user has trained or trusts.

The file of trusted texts has a line for each, as `sha256sum` prints it: the digest, then a name.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ppmodels.app.run import Run, sha256
from ppmodels.app.terminal import printable

TRUSTED_VARIABLE = "PPMODELS_TRUSTED"


def trusted_file() -> Path:
    """The file of trusted texts: $PPMODELS_TRUSTED, or ppmodels/trusted in the XDG state folder, ~/.local/state.

    Raises OSError where that is no absolute path: a relative one could lie in a stranger's folder.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # A relative XDG_STATE_HOME counts as none, as its specification has it.
    home = state if os.path.isabs(state) else os.path.expanduser("~/.local/state")
    path = Path(os.environ.get(TRUSTED_VARIABLE) or os.path.join(home, "ppmodels", "trusted"))
    if not path.is_absolute():
        raise OSError(f"{path} is no absolute path; set {TRUSTED_VARIABLE} to one")
    return path


def enter(text: bytes, name: str) -> None:
    """Enters the text of a recipe file among the trusted, beside a name to know it by.

    Raises ValueError where the file of trusted texts can not be used.
    """
    try:
        path = trusted_file()
        if sha256(text) in _digests(path):
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.lseek(file, max(os.fstat(file).st_size - 1, 0), os.SEEK_SET)
            # An editor may have left the last line without its end.
            begin = "" if os.read(file, 1) in (b"", b"\n") else "\n"
            # One write, as others may append at the same time. No name can add a line of its own.
            os.write(file, f"{begin}{sha256(text)}  {printable(name)}\n".encode())
        finally:
            os.close(file)
    except OSError as error:
        raise ValueError(
            f"{name} could not be entered among the recipes that this user trusts ({error}); a run of it is opened by "
            f"--trust, or set {TRUSTED_VARIABLE} to a file that you can write"
        ) from error


def approved(runs: Sequence[Run], trust: bool = False) -> list[bytes | None]:
    """The texts of the runs' recipe files, None of a built-in recipe: these texts alone are to be executed.

    First the hashes of all files of all runs are checked. Raises ValueError for files that are not what training wrote
    and, unless `trust`, for recipe files that this user has neither trained nor trusts.
    """
    for run in runs:
        run.weights()
    return _approved_texts(runs, trust)


def approved_text(run: Run, trust: bool = False) -> bytes | None:
    """The same of one run, which may have no weights yet."""
    (text,) = _approved_texts([run], trust)
    return text


def _approved_texts(runs: Sequence[Run], trust: bool) -> list[bytes | None]:
    texts = [run.recipe_text() for run in runs]
    if not trust:
        pairs = zip(runs, texts, strict=True)
        _refuse_strangers({run.recipe_file: sha256(text) for run, text in pairs if text is not None})
    return texts


def _refuse_strangers(digests: Mapping[Path, str]) -> None:
    why = ""
    try:
        known = _digests(trusted_file())
    except OSError as error:
        known, why = set(), f" ({error})"
    strangers = {path: digest for path, digest in digests.items() if digest not in known}
    if strangers:
        files = ", ".join(f"{path} (sha256 {digest[:16]}…)" for path, digest in strangers.items())
        runs = shlex.join(str(path.parent) for path in strangers)
        raise ValueError(
            f"{files} would be executed, and this user has neither trained nor trusted it{why}. Read it first. Then say yes "
            f"this once by --trust (in Python, trust=True), or for good by: ppmodels trust {runs}"
        )


def _digests(path: Path) -> set[str]:
    """The digests of the trusted texts. Raises OSError where another user could have written them."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = os.fstat(file.fileno())
            if os.name == "posix" and (found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022):
                raise OSError(f"{path} can be written by others; own it, and chmod 600 it")
            return {line.split()[0] for line in file if line.strip()}
    except FileNotFoundError:
        return set()
