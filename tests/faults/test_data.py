"""Tables, pictures and arrays as people bring them."""

import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.case import USUAL, Case, System
from tests.faults.given import Given, all_of, folder_named, link, mode, pipe, record, text
from tests.faults.section import rows_of

SMALL = "--steps 3 --batch-size 8 --set latent=2 --set hidden=8 --out new"
BOUNDED = System(memory=600)
"""What must be refused before it is unpacked."""


def table(name: str, *lines: str, rows: int = 40, encoding: str = "utf-8") -> Given:
    """A table with these lines first, and then rows of three numbers."""
    numbers = (f"{place},{place % 7}.5,{place % 3}" for place in range(rows))
    return text(name, ("\n".join([*lines, *numbers]) + "\n").encode(encoding))


def array(name: str, values: Any) -> Given:
    return lambda folder: np.save(folder / name, values)


def archive(name: str, **arrays: Any) -> Given:
    return lambda folder: np.savez(folder / name, **arrays)


def grey(count: int = 40, size: int = 4) -> np.ndarray:
    return (np.arange(count * size * size) % 251).astype(np.uint8).reshape(count, size, size)


def pictures(*more: Given, count: int = 30, size: int = 4) -> Given:
    """A folder of grey pictures of many levels, and more."""

    def write(folder: Path) -> None:
        (folder / "pictures").mkdir()
        for place, image in enumerate(grey(count, size)):
            Image.fromarray(image).save(folder / "pictures" / f"{place:02}.png")
        for each in more:
            each(folder)

    return write


def picture(name: str, values: Any, **options: Any) -> Given:
    return lambda folder: Image.fromarray(values).save(folder / "pictures" / name, **options)


def a_header_alone(name: str, shape: tuple[int, ...], kind: str = "|u1") -> Given:
    """An .npy that declares an array which is not there."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    return text(name, header.getvalue() + b"\0" * 100)


def a_bomb(name: str, member: str, others: bool = False) -> Given:
    """An .npz of which a member unpacks to a gigabyte of zeros."""

    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if others:
                x = io.BytesIO()
                np.save(x, grey())
                archive.writestr("x.npy", x.getvalue())
            with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                header = io.BytesIO()
                shape = {"descr": "|u1", "fortran_order": False, "shape": (10**9,)}
                np.lib.format.write_array_header_1_0(header, shape)
                file.write(header.getvalue())
                for _ in range(1000):
                    file.write(b"\0" * 10**6)

    return write


def a_gzip_bomb(name: str) -> Given:
    """A thousand times a megabyte of zeros, after the header of an IDX file of small images."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / name, "wb", compresslevel=1) as file:
            file.write(struct.pack(">IIII", 0x803, 60000, 28, 28))
            for _ in range(1000):
                file.write(b"\0" * 10**6)

    return write


def a_png_bomb(width: int, height: int) -> bytes:
    """A PNG that declares a size."""

    def chunk(kind: bytes, contents: bytes) -> bytes:
        return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))

    packed = zlib.compressobj(9)
    row = b"\0" * (width + 1)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def train(data: str, recipe: str = "vae") -> str:
    return f"train {recipe} --data {data} {SMALL}"


def refused(done: str, data: str, given: Given, *holds: str, code: int = 1, system: System = USUAL) -> Case:
    return Case(done, train(data), code, (data, *holds), given, system)


def accepted(done: str, data: str, given: Given, *holds: str, command: str = "", system: System = USUAL) -> Case:
    return Case(done, command or train(data), 0, ("new", *holds), given, system)


LONG = "x" * 300

CASES = (
    # Where they are
    refused("no such file", "nowhere.csv", text("t.csv", "1"), "neither a known name", code=2),
    refused("a name that is nearly one", "digist", text("t.csv", "1"), "Did you mean 'digits'", code=2),
    refused("a file without a suffix", "data", text("data", "1,2\n"), "no suffix", "convert it"),
    refused("a file of another kind", "t.parquet", text("t.parquet", "PAR1"), "expected a file", ".csv"),
    refused("a pipe", "p.csv", pipe("p.csv"), "a device or a pipe", "save it as a file"),
    refused("a device", "/dev/zero", text("t.csv", "1"), "a device or a pipe"),
    refused("a dangling link", "l.csv", link("l.csv", "nowhere"), "neither a known name", code=2),
    refused("a loop of links", "l.csv", link("l.csv", "l.csv"), code=2),
    refused("a user that is not there", "~nosuchuser/x.csv", text("t.csv", "1"), "~nosuchuser", code=2),
    refused("a name of 300 letters", f"{LONG}.csv", text("t.csv", "1"), "too long", code=2),
    refused("a table that can not be read", "t.csv", all_of(table("t.csv"), mode("t.csv", 0)), "Permission denied", system=System(unprivileged=True)),
    refused("an array that can not be read", "t.npy", all_of(array("t.npy", grey()), mode("t.npy", 0)), "Permission denied", system=System(unprivileged=True)),
    refused("a folder that can not be read", "pictures", all_of(pictures(), mode("pictures", 0)), "Permission denied", system=System(unprivileged=True)),
    refused("a folder that is empty", "empty", folder_named("empty"), "neither"),
    refused("a folder named as a table", "t.csv", folder_named("t.csv"), "neither"),
    Case("a folder of published data that is not there", "train vae --data mnist --folder nowhere", 2, ("nowhere", "mnist")),
    Case("a folder of published data that holds nothing", "train vae --data mnist --folder empty", 2, ("mnist", "train-images"), folder_named("empty")),
    Case("published data without a folder", "train vae --data mnist", 1, ("mnist", "PPMODELS_DATA"), system=System(environment={"PPMODELS_DATA": ""})),
    Case("an IDX file of nothing", "train vae --data mnist --folder .", 1, ("train-images-idx3-ubyte", "IDX"), all_of(*(text(f"MNIST/raw/{name}", b"") for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")))),
    Case("an IDX file that unpacks to a gigabyte", "train vae --data mnist --folder .", 1, ("train-images-idx3-ubyte.gz",), a_gzip_bomb("MNIST/raw/train-images-idx3-ubyte.gz"), BOUNDED),
    # Tables
    refused("an empty table", "t.csv", text("t.csv", ""), "an empty file"),
    refused("a header alone", "t.csv", text("t.csv", "a,b,c\n"), "a header alone"),
    refused("a table of one row", "t.csv", text("t.csv", "1,2,3\n"), "at least"),
    accepted("a missing value", "t.csv", table("t.csv", "a,b,c", "1,,3"), "1 of 123 cells are missing"),
    accepted("an NA", "t.csv", table("t.csv", "a,b,c", "1,NA,3"), "1 of 123 cells are missing"),
    Case("a missing value for a model without masks", "train gan --data t.csv --steps 3 --batch-size 8 --out new", 1, ("missing cells", "b lacks 1", "--columns=-b"), table("t.csv", "a,b,c", "1,,3")),
    refused("a column of missing values", "t.csv", text("t.csv", "a,b\n" + "1,\n2,NA\n" * 20), "t.csv", "column 2 has no value"),
    refused("a missing value in a first row", "t.csv", text("t.csv", "1,,3\n" * 9), "missing value", "row 1, column 2", "--no-header"),
    refused("an infinity", "t.csv", table("t.csv", "a,b,c", "1,inf,3"), "finite", "row 2, column 2 (b)"),
    refused("a number too large", "t.csv", table("t.csv", "a,b,c", "1,1e400,3"), "finite", "row 2"),
    refused("a text", "t.csv", table("t.csv", "a,b,c", "1,red,3"), "row 2, column 2 (b)", "'red'"),
    refused("a row too short", "t.csv", table("t.csv", "a,b,c", "1,2"), "3 columns", "row 2"),
    refused("a row too long", "t.csv", table("t.csv", "a,b,c", "1,2,3,4"), "3 columns", "row 2"),
    refused("a table of UTF-16", "t.csv", table("t.csv", encoding="utf-16"), "UTF-8"),
    refused("a table of Latin-1", "t.csv", text("t.csv", "a,ü\n1,2\n".encode("latin-1")), "UTF-8"),
    refused("a table with null bytes", "t.csv", text("t.csv", b"a,b\n1,\0\n"), "t.csv"),
    refused("a cell of 200,000 letters", "t.csv", text("t.csv", "a,b\n1," + "9" * 200_000 + "\n"), "t.csv"),
    refused("a quote that never ends", "t.csv", table("t.csv", '"a,b,c'), "t.csv"),
    refused("a picture named as a table", "t.csv", lambda folder: Image.fromarray(grey()[0]).save(folder / "t.csv", format="PNG"), "can not be read"),
    refused("1_000 in a table", "t.csv", table("t.csv", "a,b,c", "1,1_000,3"), "row 2", "'1_000'"),
    refused("digits of another alphabet", "t.csv", table("t.csv", "a,b,c", "1,１２,3"), "row 2"),
    accepted("columns of one name", "t.csv", table("t.csv", "a,a,b")),
    accepted("a constant column", "t.csv", text("t.csv", "a,b,c\n" + "".join(f"{n},7,{n % 3}\n" for n in range(40)))),
    accepted("a table with a mark of its encoding", "t.csv", text("t.csv", "\ufeffa,b,c\n" + "".join(f"{n},{n % 5},{n % 3}\n" for n in range(40)))),
    accepted("a table of Windows", "t.csv", text("t.csv", "a,b,c\r\n" + "".join(f"{n},{n % 5},{n % 3}\r\n" for n in range(40)))),
    accepted("a table of six rows", "t.csv", table("t.csv", "a,b,c", rows=6), "batch"),
    accepted("a table of tabs", "t.tsv", text("t.tsv", "a\tb\n" + "".join(f"{n}\t{n % 5}\n" for n in range(40)))),
    accepted("a table of semicolons", "t.csv", text("t.csv", "a;b\n" + "".join(f"{n};{n % 5}\n" for n in range(40)))),
    accepted("a table that is packed", "t.csv.gz", text("t.csv.gz", gzip.compress("".join(f"{n},{n % 5}\n" for n in range(40)).encode()))),
    accepted("a header of numbers", "t.csv", table("t.csv", "2019,2020,2021"), command=train("t.csv --header")),
    Case("an index and a text column", train("t.csv"), 1, ("name", "--columns"), text("t.csv", ",name,a,b\n" + "".join(f"{n},x{n},{n % 5},{n % 3}\n" for n in range(40)))),
    accepted("columns that are chosen", "t.csv", text("t.csv", ",name,a,b\n" + "".join(f"{n},x{n},{n % 5},{n % 3}\n" for n in range(40))), command=train("t.csv --columns a,b")),
    Case("a column that is not there", train("t.csv --columns a,z"), 1, ("z", "a, b, c"), table("t.csv", "a,b,c")),
    Case("a wide table", f"train vae --data t.csv {SMALL}", 0, ("new",), text("t.csv", "\n".join(",".join(str((n * k) % 11) for k in range(4000)) for n in range(20)) + "\n"), System(memory=900)),
    # Arrays
    refused("an array of no rows", "t.npy", array("t.npy", np.zeros((0, 4, 4), np.uint8)), "at least one"),
    refused("an array of one number", "t.npy", array("t.npy", np.float64(3)), "shape"),
    refused("an array of one axis", "t.npy", array("t.npy", np.zeros(40, np.uint8)), "shape"),
    refused("an array of five axes", "t.npy", array("t.npy", np.zeros((40, 2, 2, 2, 2), np.uint8)), "shape"),
    refused("an array of complex numbers", "t.npy", array("t.npy", np.zeros((40, 4, 4), np.complex64)), "complex"),
    refused("an array of texts", "t.npy", array("t.npy", np.array([["a"] * 4] * 40)), "t.npy"),
    refused("an array of dates", "t.npy", array("t.npy", np.zeros((40, 3), "datetime64[s]")), "datetime64"),
    refused("an array of records", "t.npy", array("t.npy", np.zeros(40, [("a", "f4"), ("b", "f4")])), "t.npy"),
    refused("an array of NaN", "t.npy", array("t.npy", np.full((40, 3), np.nan)), "column 1 has no value"),
    refused("an array with an infinity", "t.npy", array("t.npy", np.full((40, 3), np.inf)), "finite"),
    refused("levels below 0", "t.npy", array("t.npy", -np.ones((40, 4, 4), np.int64)), "-1"),
    refused("an .npy that is cut", "t.npy", all_of(array("t.npy", grey()), lambda folder: (folder / "t.npy").write_bytes((folder / "t.npy").read_bytes()[:200])), "can not be read"),
    refused("an .npy that is a text", "t.npy", text("t.npy", "1 2 3\n"), "can not be read"),
    refused("an .npy of a later version", "t.npy", text("t.npy", b"\x93NUMPY\x09\x00" + b"\0" * 100), "can not be read"),
    refused("an .npy whose header is no dict", "t.npy", text("t.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"[" * 16), "can not be read"),
    refused("an .npy that declares 6 GB", "t.npy", a_header_alone("t.npy", (6 * 10**9,)), system=BOUNDED),
    refused("an .npy that declares 10^18 bytes", "t.npy", a_header_alone("t.npy", (10**9, 10**9)), system=BOUNDED),
    refused("an .npy that declares a shape below 0", "t.npy", a_header_alone("t.npy", (-5, 4, 4)), system=BOUNDED),
    refused("an .npz that is cut", "t.npz", all_of(archive("t.npz", x=grey()), lambda folder: (folder / "t.npz").write_bytes((folder / "t.npz").read_bytes()[:300])), "zip"),
    refused("an .npz of nothing", "t.npz", archive("t.npz"), "no arrays"),
    refused("an .npz of other names", "t.npz", archive("t.npz", a=grey(), b=grey()), "a, b", "rename"),
    refused("an .npz without a test split", "t.npz", archive("t.npz", train=grey(), valid=grey()), "no test"),
    refused("an .npz of splits of other shapes", "t.npz", archive("t.npz", train=grey(), valid=grey(size=5), test=grey()), "valid", "(n, *(4, 4))"),
    refused("an .npz of labels of another length", "t.npz", archive("t.npz", x=grey(), y=np.zeros(39, np.int64)), "labels"),
    refused("an .npz of labels of -1", "t.npz", archive("t.npz", x=grey(), y=np.full(40, -1)), "-1"),
    refused("an .npz of labels of 10^9", "t.npz", archive("t.npz", x=grey(), y=np.full(40, 10**9)), "1000000000"),
    refused("an .npz of labels of 2^64 - 1", "t.npz", archive("t.npz", x=grey(), y=np.full(40, 2**64 - 1, np.uint64)), "18446744073709551615"),
    refused("an .npz of labels of fractions", "t.npz", archive("t.npz", x=grey(), y=np.full(40, 0.5)), "labels"),
    refused("an .npz that unpacks to a gigabyte", "t.npz", a_bomb("t.npz", "x"), system=BOUNDED),
    accepted("an .npz of a member that is not used and unpacks to a gigabyte", "t.npz", a_bomb("t.npz", "other", others=True), system=BOUNDED),
    refused("a text named .npz", "t.npz", text("t.npz", "1 2 3\n"), "zip"),
    # Pictures
    refused("a picture that is cut", "pictures", pictures(lambda folder: (folder / "pictures/05.png").write_bytes((folder / "pictures/05.png").read_bytes()[:50])), "05.png", "can not be read"),
    refused("a picture that is a text", "pictures", pictures(text("pictures/zz.png", "no picture")), "zz.png", "can not be read"),
    refused("a picture of another size", "pictures", pictures(picture("zz.png", np.zeros((5, 4), np.uint8))), "zz.png", "one size"),
    refused("a picture of colours", "pictures", pictures(picture("zz.png", np.zeros((4, 4, 3), np.uint8))), "zz.png", "RGB"),
    refused("a picture that is transparent", "pictures", pictures(picture("zz.png", np.zeros((4, 4, 4), np.uint8))), "zz.png", "RGBA"),
    refused("a picture that can not be read", "pictures", pictures(mode("pictures/05.png", 0)), "05.png", "Permission denied", system=System(unprivileged=True)),
    refused("pictures beside folders of pictures", "pictures", pictures(all_of(folder_named("pictures/a"), picture("a/x.png", grey()[0]))), "keep one of the two"),
    refused("folders that look like splits", "pictures", all_of(folder_named("pictures/train"), picture("train/x.png", grey()[0])), "look like splits"),
    refused("a picture of 200 megapixels", "pictures", pictures(text("pictures/00.png", a_png_bomb(20_000, 10_000))), "00.png", system=BOUNDED),
    refused("a picture of 10^9 pixels", "pictures", pictures(lambda folder: (folder / "pictures/00.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0) + b"\0" * 4)), "00.png", system=BOUNDED),
    accepted("a broken link among pictures", "pictures", pictures(link("pictures/zz.png", "nowhere")), "left out"),
    accepted("files of another kind among pictures", "pictures", pictures(text("pictures/notes.txt", "mine")), "left out"),
    accepted("a .gif among pictures", "pictures", pictures(lambda folder: Image.fromarray(grey()[0]).save(folder / "pictures/zz.gif"))),
    accepted("pages of a TIFF", "pictures", pictures(lambda folder: Image.fromarray(grey()[0]).save(folder / "pictures/zz.tif", save_all=True, append_images=[Image.fromarray(grey()[1])])), "left out"),
    accepted("16-bit pictures", "pictures", all_of(folder_named("pictures"), *(picture(f"{n:02}.png", np.full((4, 4), n * 2000, np.uint16)) for n in range(30))), "16"),
    accepted("pictures of 0 and 255", "pictures", all_of(folder_named("pictures"), *(picture(f"{n:02}.png", np.eye(4, k=n % 3, dtype=np.uint8) * 255) for n in range(30))), "2 levels"),
    accepted("an array of 0..3", "t.npy", array("t.npy", grey() % 4), "4 levels"),
    # A run on other data
    Case("a run on data of other columns", "evaluate run --data t.csv", 1, ("columns", "t", "a, b, c"), table("t.csv", "x,y,z")),
    Case("a run on data of another shape", "evaluate run --data t.csv", 1, ("t.csv", "expected 3 columns", "(2,)"), text("t.csv", "\n".join(f"{n},{n % 3}" for n in range(40)))),
    Case("a run of pictures on a table", "evaluate digits --data table.csv", 1, ("shape", "--data")),
    Case("a run of 17 levels on 256", "evaluate digits --data t.npy", 1, ("levels", "17", "256"), array("t.npy", grey(size=8))),
    Case("a run on data that are not there", "evaluate run --data nowhere.csv", 2, ("nowhere.csv",)),
    Case("a run on fewer rows than its batch", "evaluate run --data t.csv", 0, ("exact",), table("t.csv", "a,b,c", rows=12)),
    Case("a run on one row", "evaluate run --data t.csv", 1, ("t.csv", "at least 6 examples"), table("t.csv", "a,b,c", rows=1)),
    Case("a run on a table with a missing value", "evaluate run --data t.csv", 1, ("missing cells", "b lacks 1"), table("t.csv", "a,b,c", "1,,3")),
    Case("data that a record places on a device", "evaluate run", 1, ("/dev/zero", "a device"), record(data__source="/dev/zero")),
    Case("a batch larger than the data", "train my_model.py --batch-size 41 --out new", 0, ("a batch has all 40 examples",)),
)  # fmt: skip

test_data = rows_of("data", __name__, CASES)
