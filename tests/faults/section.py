"""A table of faults as one test of each row."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.case import Case, shown
from tests.faults.runner import outcome


def rows_of(section: str, module: str, cases: Sequence[Case]) -> Callable[..., None]:
    """The test of a table."""
    names = [shown(case) for case in cases]
    assert len(set(names)) == len(names), f"twice: {sorted({name for name in names if names.count(name) > 1})}"

    @pytest.mark.faults
    @pytest.mark.parametrize("place", range(len(cases)), ids=names)
    def test(place: int, template: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
        case = cases[place]
        found = outcome(case, module, place, template, tmp_path / "room")
        if found is None:
            pytest.skip("this system can not be made to fail in that way")
        record_property("section", section)
        record_property("verdict", found.verdict)
        assert found.verdict == "right", found.why

    return test
