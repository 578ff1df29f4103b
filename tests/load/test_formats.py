"""Every kind of file that people have: read, or one sentence with the way to read it."""

import bz2
import decimal
import gzip
import io
import json
import lzma
import os
import pickle
import threading
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.orc as orc_file
import pyarrow.parquet as pq
import pytest
from helpers import run_prepare

from vae.errors import UserError
from vae.load.config import Columns, parse_flags
from vae.load.prepare import prepare
from vae.load.reading.files import Source, find_sources
from vae.load.reading.interactions import NULLS, read_interactions, read_items
from vae.load.store import open_dataset, prepared_folder, read_manifest

COLUMNS = Columns("user", "item", "rating")
TEXT = "user,item,rating\na,1,5\nb,2,4\na,3,1\n"
INTERACTIONS = [("a", 1), ("b", 2)]


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def written(write):
    buffer = io.BytesIO()
    write(pa.table({"user": ["a"], "item": [1], "rating": [5]}), buffer)
    return buffer.getvalue()


orc = partial(written, orc_file.write_table)
parquet = partial(written, pq.write_table)


@pytest.fixture
def read(tmp_path):
    """Reads a file of some content: its interactions as raw ids, and the notes on it."""

    def read(content, columns=COLUMNS, name="ratings.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        found = read_interactions([Source(path)], columns, 4.0)
        users, items = (ids.values[ids.codes].tolist() for ids in (found.users, found.items))
        return list(zip(users, items, strict=True))

    return read


@pytest.fixture
def problem(read, tmp_path):
    """The sentence about a file that cannot be read, without its name."""

    def problem(content, columns=COLUMNS, name="ratings.csv"):
        with pytest.raises(UserError) as caught:
            read(content, columns, name)
        assert caught.value.exit_code == 2
        sentence = str(caught.value)
        assert sentence.startswith(f"{tmp_path / name}: ")
        assert sentence.endswith(".")
        assert "\n" not in sentence
        return sentence.removeprefix(f"{tmp_path / name}: ")

    return problem


@pytest.mark.parametrize("name", ["ratings.csv", "RATINGS.CSV.GZ", "data"])
@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zstd,
        lambda text: zipped({"ratings.csv": text}),
        bytes,
    ],
)
def test_compression_is_known_by_the_content_and_not_by_the_name(read, compress, name):
    assert read(compress(TEXT.encode()), name=name) == INTERACTIONS


@pytest.mark.parametrize(
    "content",
    [
        zipped({"ratings.csv": TEXT, "__MACOSX/._ratings.csv": "\0\5", "a/.DS_Store": "\0"}),
        zipped({"ratings.csv.gz": gzip.compress(TEXT.encode())}),
        gzip.compress(gzip.compress(TEXT.encode())),
    ],
    ids=["zip of a Mac", "gzip in a zip", "gzip twice"],
)
def test_an_archive_may_hold_what_a_mac_adds_or_be_compressed_again(read, content):
    assert read(content) == INTERACTIONS


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_cut_archive_is_never_read_as_a_whole_one(problem, compress):
    content = compress(("user,item,rating\n" + "a,1,5\n" * 5000).encode())
    assert problem(content[:-9]).startswith("cannot be read (")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (zipped({"a.csv": TEXT, "b.csv": TEXT}), "holds 2 files (a.csv, b.csv); unpack it"),
        (zipped({}), "holds no file; unpack it"),
        (zipped({"xl/workbook.xml": "<x>"}), "is an Excel workbook; save it as CSV."),
        (zipped({"indices.npy": "x", "data.npy": "x"}), "is a NumPy .npz archive; "),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook; save it as CSV."),
        (b"ARROW1\0\0", "is a Feather file; convert it with pandas.read_feather"),
        (b"\x93NUMPY\x01\0", "is a NumPy array; "),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; "),
        (b"SQLite format 3\0", "is an SQLite database; export the table as CSV."),
        (b"<!DOCTYPE html>\n<html>", "is an HTML page; download the ratings file itself."),
        (gzip.compress(b"x" * 257 + b"ustar\x0000", mtime=0), "is a tar archive; unpack it"),
        (
            pickle.dumps({"a": 1}),
            "is a Python pickle, which can run any code and is never",
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid sha2", "is a Git LFS pointer; fetch"),
        (b"/annex/objects/MD5E-s123--abc.csv\n", "is a git-annex pointer; fetch"),
        (b"outs:\n- md5: a\n  path: ratings.csv\n", "is a DVC pointer; fetch"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied', "is an XML document, perhaps an err"),
        (b"\xef\xbb\xbf \n<!doctype html>", "is an HTML page; download the ratings file itself."),
        (orc(), "is an ORC file; convert it with pandas.read_orc(...).to_parquet(...)."),
        (b"Obj\x01\x04\x16avro.schema", "is an Avro file; convert it to Parquet or CSV"),
        (b"\x04\x22M\x18\x64\x40", "is compressed by LZ4, lzip, Snappy or 'compress'; unpack it."),
        (gzip.compress(b"RDX3\nX\n\0\0\0\x03"), "is a file of R data; save it as CSV in R"),
        (lzma.compress(b"X\n\0\0\0\x03\0\x04"), "is a file of R data; "),
        (b"\x18\0\0\0\0\0\0\0\xa3\x7fK\x22\n\x16", "is a binary file, such as TFRecord; conv"),
        (parquet() + b"\0", "is a Parquet file that is cut or inside an archive; copy it again"),
        (gzip.compress(parquet()), "is a Parquet file that is cut or inside an archive; "),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_another_format_is_named_with_how_to_convert_it(problem, content, sentence):
    assert problem(content).startswith(sentence)


def test_a_pointer_is_named_whatever_its_file_is_called(problem):
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    assert problem(pointer, name="a.parquet").startswith("is a Git LFS pointer; ")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_json_lines_are_read(read, compress):
    lines = [
        {"user": "a", "item": 1, "rating": 5, "text": "é\u2028"},
        {"rating": 4.0, "user": "b", "item": 2.0},
        {"user": "a", "item": "3", "rating": True},
        {"user": "a", "item": 10**20, "rating": "1"},
    ]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    assert read(compress(b"\xef\xbb\xbf" + text.encode()), name="reviews.json") == [
        ("a", "1"),
        ("b", "2"),
    ]
    likes = replace(COLUMNS, rating=None)
    assert read(compress(text.encode()), likes)[3] == ("a", str(10**20))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"user": "a", "item": 1, "rating": 5}\n{"user"', "row 2: is not a JSON object ("),
        (
            '{"user": "a", "item": 1, "rating": 5}\n7',
            "row 2: is not a JSON object of one interaction; JSON",
        ),
        (
            '[\n{"user": 1}\n]',
            "row 1: is not a JSON object of one interaction; JSON files need on",
        ),
        (
            '[{"user": 1}]',
            "row 1: is not a JSON object of one interaction; JSON files ne",
        ),
        (
            '{\n"user": 1}',
            "row 1: is not a JSON object of one interaction; JSON files ne",
        ),
        (
            "{'user': 1}",
            "row 1: is not a JSON object of one interaction; JSON files ne",
        ),
        (
            '{"user": {"0": 1}, "item": {"0": 1}, "rating": {"0": 5}}',
            "row 1: is not a JSON object of on",
        ),
        ('{"id": 1, "item": 1}', "has no column 'user' but 'id', 'item'; name the columns with "),
        (
            '{"user": 1, "item": [1, 2], "rating": 5}',
            "column 'item', row 1: [1, 2] is neither a number nor text; one row per interaction is",
        ),
        (
            '{"user": true, "item": 1, "rating": 5}',
            "column 'user', row 1: true is neither a number",
        ),
        ('{"user": 1e400, "item": 1, "rating": 5}', "column 'user', row 1: inf is not an integer."),
        ('{"user": 1.5, "item": 1, "rating": 5}', "column 'user', row 1: 1.5 is not an integer."),
        (
            '{"user": 12345678901234567890.0, "item": 1, "rating": 5}',
            "column 'user', row 1: 1.2345678901234567e+19 has lost digits; store ids as integers",
        ),
        (
            '{"item": 1, "rating": 5}\n{"user": 1, "item": 1, "rating": 5}',
            "column 'user', row 1: the value is missing; ",
        ),
        (
            '{"user": 1, "item": 1, "rating": 5}\n{"user": 1, "rating": 5}',
            "column 'item', row 2: the value is missing; ",
        ),
        ('{"user": "\\ud800", "item": 1, "rating": 5}', "row 1: is not valid UTF-8"),
    ],
)
def test_what_is_wrong_with_json_lines_is_said_with_the_row(problem, text, sentence):
    assert problem(text).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a::1::5\nb::2::4\n", {"separator": "::"}),
        ("a 1  5\n\tb\t2 4 \n", {"separator": "whitespace"}),
        ("a\t1\t5\nb\t2\t4\n", {}),
        ("a;1;5,0\nb;2;4,0\n", {"decimal": ","}),
        ("# likes\na,1,5\n\n   \n# more\nb,2,4\n", {"comment": "#"}),
        ("\ufeffa,1,5\nb,2,4\n", {}),
    ],
)
def test_files_without_a_header_have_numbers_for_columns(read, text, columns):
    layout = Columns("0", "1", "2", header=False, **columns)
    assert read(text, layout) == INTERACTIONS


def test_a_line_of_white_space_is_no_row_wherever_it_is(read, monkeypatch):
    monkeypatch.setattr("vae.load.reading.text._BLOCK_BYTES", 24)
    text = "  \nuser,item,rating\n \t\na,1,5\n\n   \nb,2,4\n \n"
    assert read(text) == INTERACTIONS
    assert read(text.replace("\n", "\r\n")) == INTERACTIONS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_decides_on_the_encoding(read, encoding):
    assert read("user,item,rating\né,1,5\n".encode(encoding)) == [("é", 1)]


def test_another_encoding_is_named_by_its_flag_and_a_wrong_one_by_its_row(read, problem):
    content = "user,item,rating\na,1,5\né,2,5\n".encode("latin-1")
    assert read(content, replace(COLUMNS, encoding="latin-1")) == [("a", 1), ("é", 2)]
    assert problem(content) == (
        "row 3: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1."
    )
    assert problem(content, replace(COLUMNS, encoding="ascii")) == (
        "row 3: is not valid ascii; prepare the data with the right --encoding."
    )


BASKETS = [[user, *range(user, user + 4 + user % 5)] for user in range(30)]
LISTS = "user,item\n" + "".join(f'{b[0]},"{{}}"\n' for b in BASKETS)


@pytest.mark.parametrize(
    ("content", "more", "sentence"),
    [
        (
            LISTS.format(*(",".join(map(str, b)) for b in BASKETS)),
            [],
            "column 'item' seems to have lists, such",
        ),
        (
            LISTS.format(*BASKETS),
            [],
            "column 'item' seems to have lists, such as '[0, 0, 1, 2, 3]'; one row p",
        ),
        (LISTS.format(*(" ".join(f"N{i}" for i in b) for b in BASKETS)), [], "column 'item' seems"),
        (
            LISTS.format(*("|".join(f"b{i}" for i in b) for b in BASKETS)),
            [],
            "column 'item' seems",
        ),
        (
            LISTS.format(*(list(range(99)) for _ in BASKETS)),
            [],
            "column 'item', row 2: an id has 38",
        ),
        (
            "".join(f"{' '.join(map(str, b))}\n" for b in BASKETS),
            ["--no_header", "--sep", " ", "--user_col", "0", "--item_col", "1"],
            "row 2: 6 columns where row 1 has 5; one row per interaction is needed: awk",
        ),
        (
            "user," + ",".join(map(str, range(30))) + "\n" + "1," * 30 + "1\n",
            [],
            "has no column 'item' but 'user', '0', '1', ",
        ),
        ('{"1": [1, 2], "2": [1, 2]}', [], "row 1: is not a JSON object of one interaction; JSON "),
        (pa.table({"user": [1], "item": [[1, 2]]}), [], "column 'item' has the type list<"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_many_items_in_a_row_are_told_that_one_row_per_interaction_is_needed(
    tmp_path, content, more, sentence
):
    path = tmp_path / "lists"
    if isinstance(content, str):
        path.write_text(content)
    else:
        pq.write_table(content, path)
    done = run_prepare(*flags(tmp_path, "--ratings", path, "--rating_col", "none", *more))
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"prepare_dataset.py: error: {path}: {sentence}")
    assert "one row per interaction" in error or "one object per line" in error


def test_ids_that_look_like_lists_are_warned_of_where_they_suffice(tmp_path):
    rows = [
        (u, f"{i}|{u % 3}") for u in range(30) for i in (*range(5), *range(100 * u, 100 * u + 9))
    ]
    (tmp_path / "r.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    done = run_prepare(*flags(tmp_path, "--ratings", tmp_path / "r.csv", "--rating_col", "none"))
    assert done.returncode == 0
    assert "Warning: column 'item' seems to have lists, such as '0|0'; one row per" in done.stdout


HISTORIES = [
    {"h.json": '{"user": 1, "item": 2}\n{"user": 1, "item": 3, "rating": 1}\n'},
    {"a.csv": "user,item\n1,2\n", "b.csv": "user,item,rating\n1,3,1\n"},
    {"a.csv": "user,item,rating\n1,2,5\n", "b.json": '{"user": 1, "item": 3}'},
]


@pytest.mark.parametrize("block_rows", [1, 9])
@pytest.mark.parametrize("files", HISTORIES)
def test_ratings_that_some_rows_have_and_some_have_not_are_refused(
    tmp_path, monkeypatch, files, block_rows
):
    monkeypatch.setattr("vae.load.reading.tables._BLOCK_ROWS", block_rows)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    sources, _ = find_sources([tmp_path])
    with pytest.raises(
        UserError, match=r"row \d: the value is missing|row \d: has (a|no) column 'r"
    ):
        read_interactions(sources, COLUMNS, 4.0, keep_all=True, rating_is_optional=True)


@pytest.mark.parametrize("drop_missing", [False, True])
@pytest.mark.parametrize("block_rows", [1, 9])
@pytest.mark.parametrize(
    ("content", "row"),
    [
        ('{"item": 1}\n{"user": 7, "item": 2}\n', 1),
        ('{"user": 7, "item": 1}\n{"item": 2}\n', 2),
        ("user,item\n7,1\n,2\n", 3),
        (pa.table({"user": ["7", None], "item": ["1", "2"]}), 2),
    ],
)
def test_a_list_in_which_some_rows_have_a_user_and_some_have_not_is_refused_with_the_row(
    tmp_path, monkeypatch, content, row, block_rows, drop_missing
):
    monkeypatch.setattr("vae.load.reading.tables._BLOCK_ROWS", block_rows)
    path = tmp_path / "list"
    if isinstance(content, str):
        path.write_text(content)
    else:
        pq.write_table(content, path)
    columns = replace(COLUMNS, drop_missing=drop_missing)
    # The row in which the column comes or goes is that of the first block that differs.
    with pytest.raises(UserError, match=rf"row [{row}2]: (the value is missing|has (a|no) column)"):
        read_items([Source(path)], columns, "")


ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "utf-32", "shift_jis", "euc-jp", "gb18030", "big5"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_cut_within_its_last_character_is_refused(read, problem, encoding, compress):
    content = "user,item,rating\na,1,5\nb,2\u65e5,4".encode(encoding)
    columns = Columns("user", "item", encoding=encoding)
    assert read(compress(content), columns) == [("a", "1"), ("b", "2\u65e5")]
    content = "user,item\na,1\nb,2\u65e5".encode(encoding)
    sentence = problem(compress(content[:-1]), columns)
    assert sentence.startswith(f"row 3: is not valid {encoding.replace('utf-8', 'UTF-8')}; prepare")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("parts", [("user,item\na,1\n", "b,2\n"), ("t,user,item\n0,a,1\n",) * 2])
def test_a_byte_order_mark_between_files_that_were_joined_is_refused(problem, parts, encoding):
    content = b"".join(part.encode(encoding) for part in parts)
    assert problem(content, Columns("user", "item")) == (
        "row 3: begins with a byte-order mark, as where files were joined; pass the files one by "
        "one, or remove the mark and the second header."
    )


def test_a_byte_order_mark_inside_an_id_is_refused(problem):
    assert problem("user,item,rating\na,1\ufeff2,5\n") == (
        "column 'item', row 2: an id contains a byte-order mark; remove it."
    )


def test_ids_with_invisible_ends_are_counted_in_a_note(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating\na\u200b,1,5\n\xa0a,1,5\na,1,5\na ,1,5\n\xa0a,2,5\n")
    found = read_interactions([Source(path)], COLUMNS, 4.0)
    assert found.notes == (
        "3 ids of column 'user' begin or end with an invisible character, such as 'a\\u200b'; "
        "remove it if they are to be the ids without it.",
    )


def test_utf_16_needs_a_byte_order_mark(problem):
    sentence = problem(TEXT.encode("utf-16-le"))
    assert sentence.endswith("; prepare the data with --encoding, e.g. utf-16-le.")
    sentence = problem(TEXT, replace(COLUMNS, encoding="utf-16"))
    assert sentence == (
        "begins without a byte-order mark, so it is not in utf-16; convert the file, or prepare "
        "the data with its --encoding, e.g. utf-16-le or utf-8."
    )


def test_a_file_without_a_header_names_the_columns_that_it_has(problem):
    layout = Columns("0", "9", None, separator=",", header=False)
    assert problem("a,1,5\n", layout) == (
        "has no column '9' but '0', '1', '2'; columns are numbered from 0; pass --sep if the "
        "values are split in another way."
    )


SPELLINGS = [
    "NULL", "null", "Null", "(null)", "NaN", "nan", "NaT", "None", "none", "NONE", "NA", "na",
    "N/A", "n/a", "<NA>", "#N/A", "\\N", "NULL ", " nan",
]  # fmt: skip


@pytest.mark.parametrize("null", ["", "  ", *NULLS, *SPELLINGS])
def test_ids_that_stand_for_a_missing_value_are_no_user(read, problem, null):
    text = f"user,item,rating\na,1,5\n{null},1,5\nb,2,5\n"
    or_keep = ", or with --keep_null_ids if it is an id" if null.strip() else ""
    value = f"{null!r} stands for a missing value" if null.strip() else "the value is missing"
    assert problem(text) == (
        f"column 'user', row 3: {value}; fill it in, remove the row, or prepare "
        f"the data with --drop_missing{or_keep}."
    )
    assert read(text, replace(COLUMNS, drop_missing=True)) == INTERACTIONS
    if null.strip():
        kept = read(text, replace(COLUMNS, keep_null_ids=True))
        assert kept == [("a", 1), (null, 1), ("b", 2)]


@pytest.mark.parametrize(
    ("user", "items", "warning"),
    [
        ("unknown", 11, "Warning: 1 user has more than half of the 20 items: 'unknown' (11); if "),
        ("unknown", 10, ""),
        (-1, 20, "Warning: 1 user has more than half of the 20 items: -1 (20); if such an id s"),
    ],
)
def test_a_user_with_most_of_the_items_is_named(tmp_path, user, items, warning):
    rows = [(f"{u}", (u + i) % 20) for u in range(30) for i in range(6)]
    rows += [(user, item) for item in range(items)]
    (tmp_path / "r.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    done = run_prepare(*flags(tmp_path, "--ratings", tmp_path / "r.csv", "--rating_col", "none"))
    assert done.returncode == 0
    warnings = [line for line in done.stdout.splitlines() if line.startswith("Warning")]
    assert [line[: len(warning)] for line in warnings] == ([warning] if warning else [])


def test_dropped_rows_are_counted(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating\na,1,5\n,1,5\nb,2,\nb,NULL,5\nb,3,1\n")
    found = read_interactions([Source(path)], replace(COLUMNS, drop_missing=True), 4.0)
    assert (found.rows_read, found.rows_missing, len(found.users.codes)) == (5, 3, 1)


def parquet(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "ratings.parquet")
    return (tmp_path / "ratings.parquet").read_bytes()


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([7, 8], pa.decimal128(38, 0)),
        pa.array([decimal.Decimal("7.00"), decimal.Decimal("8.00")]),
        pa.array([7.0, 8.0]),
        pa.array([b"7", b"8"]),
        pa.array(["7", "8"]).dictionary_encode(),
    ],
)
def test_ids_of_parquet_may_be_whole_numbers_of_any_type_and_binary_text(read, tmp_path, ids):
    content = parquet(tmp_path, user=ids, item=ids, rating=[True, True])
    path = tmp_path / "ratings.parquet"
    found = read_interactions([Source(path)], COLUMNS, 1.0)
    assert found.users.values[found.users.codes].tolist() == [7, 8]
    assert content.startswith(b"PAR1")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (7.5, "column 'user', row 1: 7.5 is not an integer."),
        (float("inf"), "column 'user', row 1: inf is not an integer."),
        (float("nan"), "column 'user', row 1: the value is missing; "),
        (2.0**60, "column 'user', row 1: 1.152921504606847e+18 has lost digits; store ids as int"),
    ],
)
def test_floating_point_ids_that_are_none_are_refused(problem, tmp_path, value, sentence):
    content = parquet(tmp_path, user=[value], item=[1], rating=[5.0])
    assert problem(content, name="x.parquet").startswith(sentence)


def parts(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def read_folder(*paths):
    sources, notes = find_sources(paths)
    found = read_interactions(sources, COLUMNS, 4.0)
    users, items = (ids.values[ids.codes].tolist() for ids in (found.users, found.items))
    return list(zip(users, items, strict=True)), [*notes, *found.notes]


def test_parts_may_be_empty_or_lack_a_header_and_documents_beside_them_are_skipped(tmp_path):
    folder = parts(
        tmp_path, README_md="# Ratings", LICENSE="MIT",
        p0_csv="", p1_csv="user,item,rating\na,1,5\n", p2_csv="b,2,4\n",
        p3_csv="item,rating,user\n3,5,c\n", p4_csv="b,2,1\n",
    )  # fmt: skip
    found, notes = read_folder(folder)
    assert found == [*INTERACTIONS, ("c", 3)]
    assert notes == [
        f"Skipped {folder / 'LICENSE'}, {folder / 'README.md'}: not ratings by the name.",
        f"{folder / 'p2.csv'} and 1 more: no header row, read with that of the first part.",
    ]


@pytest.mark.parametrize("separator", [",", "\t", "::"])
def test_parts_that_split_cut_are_read_alike_in_a_folder_and_one_by_one(tmp_path, separator):
    texts = {"xaa": "user,item,rating\na,1,5\n", "xab": "b,2,4\nb,3,1\n", "xac": "c,3,5\n"}
    folder = parts(tmp_path, **{k: text.replace(",", separator) for k, text in texts.items()})
    found, notes = read_folder(folder)
    assert found == [*INTERACTIONS, ("c", 3)]
    assert notes[-1] == (
        f"{folder / 'xab'} and 1 more: no header row, read with that of the first part."
    )
    assert read_folder(*(folder / name for name in texts)) == (found, notes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("b,2\n", "has no column 'user' but 'b', '2'; row 1 looks"),
        (
            "listener,track,stars\n1,2,5\n",
            "has no column 'user' but 'listener', 'track', 'stars'; ",
        ),
    ],
)
def test_a_part_with_other_columns_is_refused(tmp_path, text, sentence):
    parts(tmp_path, p1_csv="user,item,rating\na,1,5\n", p2_csv=text)
    with pytest.raises(UserError, match=rf"p2\.csv: {sentence}"):
        read_folder(tmp_path)


@pytest.mark.parametrize("header", ["thing,who", "User,Item", "item_1,user_1", "movie,title"])
def test_a_second_file_with_a_header_of_other_names_is_refused(tmp_path, header):
    folder = parts(tmp_path, p1_csv="user,item\na,i1\n", p2_csv=f"{header}\ni5,u9\n")
    columns = Columns("user", "item", None)
    with pytest.raises(UserError, match=r"p2\.csv: has no column 'user' but"):
        read_interactions(find_sources(sorted(folder.iterdir()))[0], columns, 0.0)


def test_the_folders_of_a_partitioned_table_give_its_column(tmp_path):
    for user in ("a", "b%2Fc"):
        folder = tmp_path / "table" / f"user={user}"
        folder.mkdir(parents=True)
        frame = pd.DataFrame({"item": [1, 2], "rating": [5.0, 1.0]})
        frame.to_parquet(folder / "part-0.parquet")
        frame.to_csv(folder / "part-1.csv", index=False)
    found, _ = read_folder(tmp_path / "table")
    assert found == [("a", 1), ("a", 1), ("b/c", 1), ("b/c", 1)]


def test_a_default_partition_is_a_missing_value(tmp_path):
    folder = tmp_path / "user=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir()
    (folder / "part.csv").write_text("item,rating\n1,5\n")
    with pytest.raises(UserError, match="column 'user', row 2: the value is missing"):
        read_folder(tmp_path)


def flags(tmp_path, *more):
    return [
        "--data_dir", str(tmp_path), "--dataset", "mine", "--user_col", "user", "--item_col",
        "item", "--heldout_users", "3", *map(str, more),
    ]  # fmt: skip


ROWS = "user,item,rating\n" + "".join(f"{u},{i},5\n" for u in range(30) for i in range(6))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_pipe_is_read_once_and_its_digest_is_that_of_what_went_through(tmp_path, compress):
    content = compress(ROWS.encode())
    said = []
    for _ in range(2):
        reader, writer = os.pipe()

        def write(writer=writer):
            with os.fdopen(writer, "wb") as file:
                file.write(content)

        thread = threading.Thread(target=write)
        thread.start()
        path = f"/dev/fd/{reader}"
        prepare(parse_flags(flags(tmp_path, "--ratings", path)), said.append)
        thread.join()
        os.close(reader)
        (source,) = read_manifest(prepared_folder(tmp_path, "mine")).provenance.sources
        plain = tmp_path / "plain"
        plain.write_bytes(content)
        other = [*flags(tmp_path, "--ratings", plain), "--dataset", "other"]
        prepare(parse_flags(other), lambda _: None)
        (other,) = read_manifest(prepared_folder(tmp_path, "other")).provenance.sources
        assert (source.sha256, source.bytes) == (other.sha256, other.bytes)
    assert any(line.startswith("Preparing again: ") and "is a pipe" in line for line in said)
    mine, other = open_dataset(tmp_path, "mine"), open_dataset(tmp_path, "other")
    assert mine.fingerprint == other.fingerprint


def test_a_zip_archive_in_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    archive = zipped({"a.csv": TEXT})
    thread = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=[archive])
    thread.start()
    with pytest.raises(UserError, match="a zip archive cannot be read from a pipe; use 'unzip -p'"):
        read_interactions([Source(tmp_path / "fifo")], COLUMNS, 4.0)
    thread.join()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--no_header"], "--user_col 'user' is not a column number, which --no_header needs"),
        (["--no_header", "--user_col", "\u0661"], "--user_col '\u0661' is not a column number"),
        (["--seed", "\u0661"], "argument --seed: invalid int value: '\u0661'"),
        (["--threshold", "\u0661"], "argument --threshold: invalid float value: '\u0661'"),
        (["--decimal", "5"], "--decimal '5' is part of numbers; pass e.g. ','"),
        *(
            (["--encoding", name], f"--encoding {name!r} is not a text encoding; pass e.g. latin-1")
            for name in (
                "klingon",
                "base64",
                "hex",
                "rot_13",
                "uu",
                "quopri",
                "zlib",
                "punycode",
                "idna",
                "undefined",
                "\udcff",
            )
        ),
        (["--decimal", ",,"], "--decimal ',,' is not a single character"),
        (["--comment", "//"], "--comment '//' is not a single character"),
        (["--sep", 'a"'], "--sep 'a\"' is not a valid column separator"),
        (
            ["--archive", "x.zip"],
            "--dataset 'mine' is not a data set that --archive knows; pass one of",
        ),
    ],
)
def test_a_wrong_flag_of_the_format_is_refused(tmp_path, given, sentence):
    with pytest.raises(UserError) as caught:
        parse_flags(flags(tmp_path, *given))
    assert sentence in str(caught.value)


def test_a_decimal_comma_is_read_or_named(read, problem):
    text = "user;item;rating\na;1;4,5\nb;2;3,5\n"
    assert problem(text) == (
        "column 'rating', row 2: '4,5' is not a number (for a decimal comma prepare the data with "
        "--decimal ,)."
    )
    assert read(text, replace(COLUMNS, decimal=",")) == [("a", 1)]


def test_digits_of_other_scripts_are_text(read, problem):
    text = "user,item,rating\n12,1,5\n1\u0662,1,5\n"
    assert read(text) == [("12", 1), ("1\u0662", 1)]
    lines = '{"user": 12, "item": 1, "rating": 5}\n{"user": "1\u0662", "item": 1, "rating": 5}\n'
    assert read(lines) == [("12", 1), ("1\u0662", 1)]
    assert problem("user,item,rating\n1,1,\u0665\n").startswith(
        "column 'rating', row 2: '\u0665' is"
    )


@pytest.mark.parametrize("value", ["1_000", "\uff10", "0x1", "1e", "+", "--1", "1 2"])
def test_what_only_a_programming_language_takes_for_a_number_is_no_rating(problem, value):
    assert problem(f"user,item,rating\na,1,{value}\n") == (
        f"column 'rating', row 2: {value!r} is not a number."
    )


def test_ratings_are_as_exact_as_python_reads_them(tmp_path):
    numbers = np.random.default_rng(0).random(2000)
    path = tmp_path / "ratings.csv"
    path.write_text(
        "user,item,rating\n" + "".join(f"a,{i},{n!r}\n" for i, n in enumerate(numbers.tolist()))
    )
    threshold = float(np.sort(numbers)[1000])
    found = read_interactions([Source(path)], COLUMNS, threshold)
    assert len(found.items.codes) == 1000
