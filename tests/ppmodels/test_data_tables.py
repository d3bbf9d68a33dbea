"""Tables as people bring them: separators, headers, and columns that are no numbers."""

import gzip
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppmodels.data import Dataset, Reading, load
from ppmodels.data.reading import Names
from ppmodels.data.table import own_table

N = 20
NUMBERS = np.random.default_rng(0).integers(-999, 999, (N, 3)) / 100


def write(path: Path, header: str | None, rows: Any, separator: str = ",") -> Path:
    lines = [] if header is None else [header]
    text = "\n".join([*lines, *(separator.join(map(str, row)) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix.lower() == ".gz" else text.encode())
    return path


def table_of(data: Dataset) -> Any:
    """All rows in their own units, in order of the first column."""
    seen = torch.cat([data.original(data.split(name).values) for name in ("train", "valid", "test")]).numpy()
    return seen[seen[:, 0].argsort()]


def people(path: Path) -> Path:
    rows = [(at, f"p{at}", 20 + at, ("Uri", "Bern, BE", "Basel")[at % 3], 7) for at in range(N)]
    return write(path, ",name,age,city,kind", [[f'"{cell}"' for cell in row] for row in rows])


# ---- separators and headers ----


@pytest.mark.parametrize(
    ("name", "separator"),
    [("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.tsv", "\t"), ("t.csv.gz", ","), ("T.TSV.GZ", "\t")],
)
@pytest.mark.parametrize("header", [True, False])
def test_columns_are_separated_by_commas_semicolons_or_tabs(
    name: str, separator: str, header: bool, tmp_path: Path
) -> None:
    names = separator.join(["a, b" if separator != "," else "a", "b; c" if separator == "," else "b", "c"])
    data = load(write(tmp_path / name, names if header else None, NUMBERS, separator))
    assert data.name.lower() == "t"
    assert data.columns == (tuple(names.split(separator)) if header else ())
    np.testing.assert_allclose(table_of(data), NUMBERS[NUMBERS[:, 0].argsort()], atol=1e-6, rtol=0)


def test_a_first_row_of_numbers_is_a_header_where_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "years.csv", "2001,2002,2003", NUMBERS)
    read = {given: load(path, reading=Reading(header=given)) for given in (None, False, True)}
    assert [len(table_of(data)) for data in read.values()] == [N + 1, N + 1, N]
    assert read[True].columns == ("2001", "2002", "2003")
    assert read[None].notes == ["the first row, 2001, 2002, 2003, is read as data; if it names the columns: --header"]
    assert read[False].notes == read[True].notes == []
    mixed = write(tmp_path / "mixed.csv", "a,2002,2003", NUMBERS)
    with pytest.raises(ValueError, match=r"in row 1, column 1, got 'a'; .*; if that row names the columns: --header"):
        load(mixed)
    assert load(mixed, reading=Reading(header=True)).columns == ("a", "2002", "2003")
    with pytest.raises(
        ValueError, match=r"missing value '' in row 1, column 1, the first: .*, --header; if it is data, --no-header"
    ):  # as pandas writes no names
        load(write(tmp_path / "pandas.csv", ",0,1", NUMBERS))


@pytest.mark.parametrize(("rows", "columns"), [(3, 20_000), (20_000, 3)])
def test_the_memory_of_reading_goes_by_the_cells(rows: int, columns: int, tmp_path: Path) -> None:
    """A wide table's names and a row of texts are held beside its numbers, 8 bytes each."""
    line = ",".join(["-0.125"] * columns) + "\n"
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"c{place}" for place in range(columns)) + "\n" + line * rows)
    tracemalloc.start()
    try:
        raw = own_table(path, Reading())
        assert tracemalloc.get_traced_memory()[1] < 120 * raw.values.size
    finally:
        tracemalloc.stop()
    assert raw.values.shape == (rows, columns)
    assert raw.columns[-1] == f"c{columns - 1}"


def test_columns_of_a_wide_table_are_looked_up_at_once(tmp_path: Path) -> None:
    """One by one among all, those that a run has recorded took minutes."""
    names = Names(f"c{place}" for place in range(100_000))
    assert names.chosen(names[::-1]) == [*range(100_000)][::-1]
    assert len(names.chosen(["-c5", "-7"])) == 99_998
    assert [names.called(place) for place in range(len(names))] == [*names]


# ---- which columns ----


def test_columns_of_text_are_named_with_what_leaves_them_out(tmp_path: Path) -> None:
    path = people(tmp_path / "people.csv")
    with pytest.raises(
        ValueError,
        match=r"row 2, column 2 \(name\), got 'p0' \(and so in 1 more .*--columns=-1,-name,-city, .*--categories",
    ):
        load(path)
    with pytest.raises(ValueError, match=r"column 1, which has no name, numbers the rows .*: --columns=-name,-city,-1"):
        load(path, reading=Reading(columns=("-name", "-city")))
    data = load(path, reading=Reading(columns=("-name", "-city", "-1")))
    assert data.columns == ("age", "kind")
    assert data.reading.columns == ("age", "kind")
    np.testing.assert_allclose(table_of(data), [[20 + at, 7] for at in range(N)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id", "Index"])
@pytest.mark.parametrize("first", [0, 1, 100])
def test_a_column_that_numbers_the_rows_is_read_only_where_it_is_named(name: str, first: int, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", f"{name},b,c", np.c_[first + np.arange(N), NUMBERS[:, 1:]])
    with pytest.raises(ValueError, match="numbers the rows and tells nothing else"):
        load(path)
    assert load(path, reading=Reading(columns=("1", "c"))).columns == (name, "c")
    assert load(path, reading=Reading(columns=("-1",))).columns == ("b", "c")


def test_the_order_of_chosen_columns_is_as_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b,b", NUMBERS)
    data = load(path, reading=Reading(columns=("3", "a")))
    assert data.columns == ("b", "a")
    assert data.reading.columns == ("3", "a")  # by place, as two have the name
    np.testing.assert_allclose(np.sort(table_of(data), 0), np.sort(NUMBERS[:, [2, 0]], 0), atol=1e-6, rtol=0)
    nameless = load(write(tmp_path / "u.csv", None, NUMBERS), reading=Reading(columns=("-1",)))
    assert (nameless.columns, nameless.reading.columns) == (("x1", "x2"), ("2", "3"))


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"columns": ("agee",)}, r"t.csv: columns: there is no column 'agee' among age, b, c; did you mean 'age'"),
        ({"columns": ("4",)}, "there is no column '4'"),
        ({"columns": ("0",)}, "there is no column '0'"),
        ({"columns": ("-age", "b")}, "expected those to read, or each after a minus those to leave out, got -age, b"),
        ({"columns": ("-age", "-b", "-c")}, "expected one at least, and all of age, b, c are left out"),
        ({"categories": {"town": ()}}, "there is no column 'town'"),
        ({"columns": ("-b",), "categories": {"b": ()}}, "categories: b are not among the columns that are read"),
    ],
)
def test_columns_that_are_not_there_are_refused(reading: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "t.csv", "age,b,c", NUMBERS), reading=Reading(**reading))


@pytest.mark.parametrize(
    "wrong",
    [{"header": "yes"}, {"columns": ["a"]}, {"categories": ("a",)}, {"levels": 1}, {"levels": 257}, {"levels": 2.0}],
)
def test_a_reading_of_wrong_types_is_refused(wrong: Any) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Reading(**wrong)


def test_columns_are_of_text_files_and_settings_of_data_of_your_own(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", NUMBERS)
    with pytest.raises(ValueError, match=r"t.npy: header and columns are of a table in a text file"):
        load(tmp_path / "t.npy", reading=Reading(header=True, columns=("a",)))
    with pytest.raises(ValueError, match="digits is read as it is published"):
        load("digits", reading=Reading(levels=4))


# ---- categories and levels ----


def test_categories_become_columns_of_0_and_1(tmp_path: Path) -> None:
    path = people(tmp_path / "people.csv")
    asked = Reading(columns=("age", "city", "kind"), categories={"city": ()})
    data = load(path, reading=asked)
    assert data.columns == ("age", "city=Basel", "city=Bern, BE", "city=Uri", "kind")
    expected = [[20 + at, at % 3 == 2, at % 3 == 1, at % 3 == 0, 7] for at in range(N)]
    np.testing.assert_allclose(table_of(data), np.array(expected, float), atol=1e-5, rtol=0)
    # What is recorded reads a table of fewer values alike, and refuses other values.
    recorded = Reading.recorded(
        {"header": None, **{k: v for k, v in asdict(data.reading).items() if k != "header"}}
        | {"columns": list(data.reading.columns), "categories": {"city": list(data.reading.categories["city"])}}
    )
    assert recorded == data.reading
    rows = [(at, "Uri", 30 + at, 7) for at in range(N)]
    few = load(write(tmp_path / "few.csv", "id,city,age,kind", rows), reading=recorded)
    assert few.columns == data.columns
    other = write(tmp_path / "other.csv", "age,city,kind", [(at, "Genf", 7) for at in range(N)])
    with pytest.raises(ValueError, match=r"expected Basel, Bern, BE, Uri in row 2, column 2 \(city\), got 'Genf'"):
        load(other, reading=recorded)
    empty = write(tmp_path / "empty.csv", "age,city,kind", [(at, "", 7) for at in range(N)])
    with pytest.raises(ValueError, match=r"empty.csv: categories: city has no value in any row"):
        load(empty, reading=asked)


def test_a_table_can_be_of_categories_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b", [("no", "3"), ("yes", "1_0")] * 10)
    data = load(path, reading=Reading(categories={"a": (), "b": ()}, levels=2))
    assert (data.columns, data.levels) == (("a=no", "a=yes", "b=1_0", "b=3"), 2)
    assert (table_of(data) == [[0, 1, 1, 0]] * 10 + [[1, 0, 0, 1]] * 10).all()


@pytest.mark.parametrize("kind", ["csv", "int64", "uint8", "float32"])
def test_whole_numbers_are_levels_where_these_are_named(kind: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 4, (N, 3))
    path = tmp_path / ("t.csv" if kind == "csv" else "t.npy")
    if kind == "csv":
        write(path, "a,b,c", array)
    else:
        np.save(path, array.astype(kind))
    data = load(path, reading=Reading(levels=5))
    assert (data.levels, data.shape, data.train.values.dtype) == (5, (3,), torch.uint8)
    assert sorted(map(tuple, table_of(data))) == sorted(map(tuple, array))
    with pytest.raises(
        ValueError, match=r"expected 3 levels, whole numbers 0..2, and example \d+ .* has 3; .* --levels 4"
    ):
        load(path, reading=Reading(levels=3))


@pytest.mark.parametrize("cell", ["²", "9" * 5000, "x" * 5000, "1e999", "٣,٤"])
def test_a_strange_cell_is_refused_in_a_line(cell: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", None, [[f'"{cell}"', 2, 3]] * 9)
    with pytest.raises(ValueError, match=r"t.csv: expected a (finite )?number in row 1, column 1, got ") as refused:
        load(path)
    assert len(str(refused.value)) < 500


def test_a_table_of_other_numbers_has_no_levels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected levels: .* got float64 in -9"):
        load(write(tmp_path / "t.csv", "a,b,c", NUMBERS), reading=Reading(levels=5))
