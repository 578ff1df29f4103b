"""Which files are read, in which order, and what they are by their content."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import socket
import threading
import zipfile
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.orc as orc_file
import pyarrow.parquet as pq
import pytest
from helpers import run_prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from ratings import COLUMNS, WRITERS, problem, read, write, write_csv, write_parquet

from vae.errors import UserError
from vae.load.config import PrepareConfig
from vae.load.prepare import prepare
from vae.load.reading.files import Source, find_sources
from vae.load.reading.interactions import read_interactions
from vae.load.store import open_dataset, prepared_folder, read_manifest

TEXT = "user,item,rating\na,1,5\nb,2,4\na,3,1\n"
INTERACTIONS = [("a", 1), ("b", 2)]


def found(paths):
    """The paths of the files that are found."""
    return [source.path for source in find_sources(paths)[0]]


def read_all(*paths):
    """The interactions of files and folders, and what is said about these."""
    sources, notes = find_sources(paths)
    return read(sources), [*notes, *read_interactions(sources, COLUMNS, 4.0).notes]


def parts(folder, **contents):
    """A folder of files; "__" in a name stands for "/" and "_" for "."."""
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
    return folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, "user,item,rating\n1,2,5\n")


def test_a_folder_is_read_by_its_parts_in_the_order_of_their_names(tmp_path):
    touch(tmp_path, "part-2.csv", "part-1.csv", "year=1999/part-0.csv", ".part-3.crc", "_SUCCESS")
    touch(tmp_path, "_temporary/part-4.csv", ".hidden/part-5.csv")
    names = ["part-1.csv", "part-2.csv", "year=1999/part-0.csv"]
    assert found([tmp_path]) == [tmp_path / name for name in names]


def test_files_and_folders_are_read_in_the_order_they_are_given_in(tmp_path):
    touch(tmp_path, "b.csv", "folder/c.csv", "a.csv", ".cache/_all/part.csv")
    given = [tmp_path / name for name in ("b.csv", "folder", "a.csv", ".cache/_all")]
    names = ("b.csv", "folder/c.csv", "a.csv", ".cache/_all/part.csv")
    assert found(given) == [tmp_path / name for name in names]


def test_a_missing_file_and_a_folder_without_parts_are_refused(tmp_path):
    touch(tmp_path, "a.csv", "empty/_SUCCESS", "empty/.part.csv.crc")
    with pytest.raises(UserError, match=r"b\.csv: file not found\.$"):
        found([tmp_path / "a.csv", tmp_path / "b.csv"])
    with pytest.raises(UserError, match=r"empty: is a folder without ratings files\.$"):
        found([tmp_path / "empty"])


TABLES = {
    "Delta Lake": ("_delta_log/00000000000000000001.json", "part-0.parquet"),
    "Iceberg": ("metadata/v1.metadata.json", "data/user=1/part-0.parquet"),
    "Hudi": (".hoodie/hoodie.properties", "2026/part-0.parquet"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_with_a_log_is_refused_whichever_of_its_folders_or_files_is_given(tmp_path, kind):
    table = tmp_path / "lake" / "ratings"
    touch(table, *TABLES[kind])
    file = table / TABLES[kind][1]
    for path in (tmp_path / "lake", table, file.parent, file):
        with pytest.raises(UserError) as caught:
            found([path])
        assert str(caught.value) == (
            f"{table}: is a table of {kind}, whose log decides which rows of its files count; "
            "export its current rows, e.g. in Spark: spark.read.format("
            f'"{kind.lower().partition(" ")[0]}").load("{table}").write.parquet("ratings"), and '
            "pass these."
        )


def test_text_beside_a_table_and_a_folder_with_other_metadata_are_read(tmp_path):
    touch(tmp_path, "_delta_log/0.json", "h.csv", "b/metadata/site.metadata.json", "b/p.parquet")
    assert found([tmp_path / "h.csv"]) == [tmp_path / "h.csv"]
    (tmp_path / "_delta_log").rename(tmp_path / "log")
    assert found([tmp_path / "b/p.parquet"]) == [tmp_path / "b/p.parquet"]


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "socket", Path("/dev/zero"), Path("/dev/null")):
            link = tmp_path / "link.csv"
            link.symlink_to(path)
            for name in (path, link):
                with pytest.raises(UserError, match=f"^{name}: is not a regular file; "):
                    found([name])
            link.unlink()


def test_a_part_that_is_no_regular_file_is_refused_and_not_left_out(tmp_path):
    touch(tmp_path, "part-1.csv")
    os.mkfifo(tmp_path / "part-2.csv")
    with pytest.raises(UserError, match=r"part-2\.csv: is not a regular file; "):
        found([tmp_path])
    (tmp_path / "part-2.csv").unlink()
    (tmp_path / "part-2.csv").symlink_to("gone.csv")
    with pytest.raises(UserError, match=r"part-2\.csv: file not found\.$"):
        found([tmp_path])


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


def columnar(write_table):
    buffer = io.BytesIO()
    write_table(pa.table({"user": ["a"], "item": [1], "rating": [5]}), buffer)
    return buffer.getvalue()


ORC, PARQUET = columnar(orc_file.write_table), columnar(pq.write_table)
STREAMS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}
COMPRESSED = {
    "plain": TEXT,
    **{name: compress(TEXT.encode()) for name, compress in STREAMS.items()},
    "zip": zipped({"ratings.csv": TEXT}),
    "zip of a Mac": zipped({"r.csv": TEXT, "__MACOSX/._r.csv": "\0\5", "a/.DS_Store": "\0"}),
    "gzip in a zip": zipped({"ratings.csv.gz": gzip.compress(TEXT.encode())}),
    "gzip twice": gzip.compress(gzip.compress(TEXT.encode())),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compression_is_known_by_the_content_and_not_by_the_name(tmp_path, name):
    for file in ("ratings.csv", "RATINGS.CSV.GZ", "data"):
        assert read(write(tmp_path / file, COMPRESSED[name])) == INTERACTIONS


@settings(max_examples=30)
@given(st.sampled_from([*STREAMS]), st.data())
def test_a_cut_archive_is_never_read_as_a_whole_one(tmp_path_factory, name, data):
    rows = "".join(f"{row},{row * row % 9973},5\n" for row in range(3000))
    archive = STREAMS[name](f"user,item,rating\n{rows}".encode())
    path = tmp_path_factory.getbasetemp() / "truncated.csv"
    write(path, archive[: data.draw(st.integers(6, len(archive) - 1))])
    assert problem(path).startswith("cannot be read (")


def test_a_damaged_archive_is_reported(tmp_path):
    archive = bytearray(gzip.compress(b"user,item,rating\n" + b"1,2,5\n" * 5000))
    archive[-6] ^= 1  # in the checksum
    assert problem(write(tmp_path / "r.csv.gz", archive)).startswith("cannot be read (")


OTHER = "is neither text nor Parquet but a binary file or an archive of another format; convert it"
POINTER = "is a pointer of Git LFS, git-annex or DVC; fetch the file with 'git lfs pull', "
PAGE = "is an HTML or XML document, perhaps an error message of the server; download the ratings"
CUT = "is a Parquet file that is cut or inside an archive; copy it again, or unpack it."
FOREIGN = {
    "two files": (zipped({"a.csv": TEXT, "b.csv": TEXT}), "holds 2 files (a.csv, b.csv); unpack"),
    "no file": (zipped({}), "holds no file; unpack it"),
    "xlsx": (zipped({"xl/workbook.xml": "<x>"}), "is an Excel workbook; save it as CSV."),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook; save it as CSV."),
    "npz": (zipped({"indices.npy": "x", "data.npy": "x"}), "is a NumPy .npz archive; save its int"),
    "npy": (b"\x93NUMPY\x01\0", "is a NumPy array; save it with numpy.savetxt"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; convert it with pandas.read_hdf"),
    "pickle": (pickle.dumps({"a": 1}), "is a Python pickle, which can run any code and is never"),
    "cut Parquet": (PARQUET + b"\0", CUT),
    "Parquet in gzip": (gzip.compress(PARQUET), CUT),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha2", POINTER),
    "annex": (b"/annex/objects/MD5E-s123--abc.csv\n", POINTER),
    "DVC": (b"outs:\n- md5: a\n  path: ratings.csv\n", POINTER),
    "HTML": (b"\xef\xbb\xbf \n<!doctype html>", PAGE),
    "XML": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied', PAGE),
    "Feather": (b"ARROW1\0\0", OTHER),
    "ORC": (ORC, OTHER),
    "Avro": (b"Obj\x01\x04\x16avro.schema", OTHER),
    "SQLite": (b"SQLite format 3\0", OTHER),
    "RDS": (gzip.compress(b"RDX3\nX\n\0\0\0\x03"), OTHER),
    "RData": (lzma.compress(b"X\n\0\0\0\x03\0\x04"), OTHER),
    "LZ4": (b"\x04\x22M\x18\x64\x40", OTHER),
    "tar": (gzip.compress(b"x" * 257 + b"ustar\x0000", mtime=0), OTHER),
    "TFRecord": (b"\x18\0\0\0\0\0\0\0\xa3\x7fK\x22\n\x16", OTHER),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_format_is_named_with_how_to_convert_it(tmp_path, name):
    content, sentence = FOREIGN[name]
    assert problem(write(tmp_path / "ratings.csv", content)).startswith(sentence)


def test_a_pointer_is_named_whatever_its_file_is_called(tmp_path):
    path = write(tmp_path / "a.parquet", FOREIGN["LFS"][0])
    assert problem(path).startswith(POINTER)


def test_files_of_all_formats_are_read_one_after_another_and_their_ids_are_of_one_kind(tmp_path):
    write_csv(tmp_path / "1.csv", user=["a"], item=["1"], rating=["5"])
    write_csv(tmp_path / "2.tsv", "\t", user=["7"], item=["2"], rating=["5"])
    parts(tmp_path, **{"3_csv_gz": gzip.compress(b"user,item,rating\na,3,5\n")})
    write_parquet(tmp_path / "4.parquet", user=["c", "b"], item=[1, 9], rating=[4.0, 3.0])
    write_parquet(tmp_path / "5", user=[7], item=[4], rating=[4])
    expected = [("a", 1), ("7", 2), ("a", 3), ("c", 1), ("7", 4)]
    assert read(find_sources([tmp_path])[0]) == expected


def test_a_part_without_rows_does_no_harm_but_one_part_needs_some(tmp_path):
    columns = {"user": pa.array([], "int64"), "item": pa.array([], "null"), "rating": pa.array([])}
    first = write_csv(tmp_path / "1.csv", user=[], item=[], rating=[])
    write_parquet(tmp_path / "2.parquet", **columns)
    with pytest.raises(UserError) as caught:
        read(find_sources([tmp_path])[0])
    assert str(caught.value) == f"{first} and 1 more: no rows."
    write(tmp_path / "3.csv", "")
    write_csv(tmp_path / "4.csv", user=["1"], item=["2"], rating=["5"])
    assert read(find_sources([tmp_path])[0]) == [(1, 2)]


def test_parts_may_lack_a_header_and_documents_beside_them_are_skipped(tmp_path):
    folder = parts(
        tmp_path, README_md="# Ratings", LICENSE="MIT",
        p0_csv="", p1_csv="user,item,rating\na,1,5\n", p2_csv="b,2,4\n",
        p3_csv="item,rating,user\n3,5,c\n", p4_csv="b,2,1\n",
    )  # fmt: skip
    interactions, notes = read_all(folder)
    assert interactions == [*INTERACTIONS, ("c", 3)]
    assert notes == [
        f"Skipped {folder / 'LICENSE'}, {folder / 'README.md'}: not ratings by the name.",
        f"{folder / 'p2.csv'} and 1 more: no header row, read with that of the first part.",
    ]


@pytest.mark.parametrize("separator", [",", "\t", "::"])
def test_parts_that_split_cut_are_read_alike_in_a_folder_and_one_by_one(tmp_path, separator):
    texts = {"xaa": "user,item,rating\na,1,5\n", "xab": "b,2,4\nb,3,1\n", "xac": "c,3,5\n"}
    folder = parts(tmp_path, **{k: text.replace(",", separator) for k, text in texts.items()})
    interactions, notes = read_all(folder)
    assert interactions == [*INTERACTIONS, ("c", 3)]
    assert notes[-1] == (
        f"{folder / 'xab'} and 1 more: no header row, read with that of the first part."
    )
    assert read_all(*(folder / name for name in texts)) == (interactions, notes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("b,2\n", "has no column 'user' but 'b', '2'; row 1 looks"),
        ("listener,track,stars\n1,2,5\n", "has no column 'user' but 'listener', 'track', 'stars'"),
        ("thing,who,how\n5,9,1\n", "has no column 'user' but 'thing', 'who', 'how'; "),
        ("User,Item,Rating\n5,9,1\n", "has no column 'user' but 'User', 'Item', 'Rating'; "),
        ("item_1,user_1,r\n5,9,1\n", "has no column 'user' but 'item_1', 'user_1', 'r'; "),
    ],
)
def test_a_part_with_other_columns_is_refused(tmp_path, text, sentence):
    folder = parts(tmp_path, p1_csv="user,item,rating\na,1,5\n", p2_csv=text)
    if not text.startswith("item_1"):  # with digits and in a folder it may be data
        with pytest.raises(UserError, match=rf"p2\.csv: {sentence}"):
            read_all(folder)
    with pytest.raises(UserError, match=rf"p2\.csv: {sentence}"):
        read_all(*sorted(folder.iterdir()))


def test_the_folders_of_a_partitioned_table_give_its_column(tmp_path):
    for user in ("a", "b%2Fc"):
        folder = tmp_path / "table" / f"user={user}"
        folder.mkdir(parents=True)
        frame = pd.DataFrame({"item": [1, 2], "rating": [5.0, 1.0]})
        frame.to_parquet(folder / "part-0.parquet")
        frame.to_csv(folder / "part-1.csv", index=False)
    assert read_all(tmp_path / "table")[0] == [("a", 1), ("a", 1), ("b/c", 1), ("b/c", 1)]


def test_a_default_partition_is_a_missing_value(tmp_path):
    folder = tmp_path / "user=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir()
    write(folder / "part.csv", "item,rating\n1,5\n")
    with pytest.raises(UserError, match=r"column 'user', row 2 \(1,5,\): the value is missing"):
        read_all(tmp_path)


ROWS = "user,item,rating\n" + "".join(f"{u},{i},5\n" for u in range(30) for i in range(6))


def prepare_flags(tmp_path, name, path):
    return (
        "--data_dir", tmp_path, "--dataset", name, "--user_col", "user", "--item_col", "item",
        "--heldout_users", 3, "--ratings", path,
    )  # fmt: skip


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_pipe_is_read_once_and_always_prepared_again(tmp_path, compress):
    content = compress(ROWS.encode())
    for _ in range(2):
        reader, writer = os.pipe()
        thread = threading.Thread(target=partial(_fill, writer, content))
        thread.start()
        done = run_prepare(*prepare_flags(tmp_path, "piped", f"/dev/fd/{reader}"))
        assert done.returncode == 0, done.stderr
        thread.join()
        os.close(reader)
    assert any(
        line.startswith("Preparing again: ") and "is a pipe" in line
        for line in done.stdout.splitlines()
    )
    plain = write(tmp_path / "plain.csv", content)
    assert run_prepare(*prepare_flags(tmp_path, "plain", plain)).returncode == 0
    piped, plain = (open_dataset(tmp_path, name) for name in ("piped", "plain"))
    assert piped.fingerprint == plain.fingerprint


def _fill(descriptor, content):
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def test_a_zip_archive_in_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    archive = zipped({"a.csv": TEXT})
    thread = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=[archive])
    thread.start()
    sentence = "a zip archive cannot be read from a pipe; use 'unzip -p'."
    assert problem(tmp_path / "fifo") == sentence
    thread.join()


IDS = st.one_of(
    st.just([*range(8, 30)]),
    st.just([f"id{number}" for number in range(22)]),
    st.just([*map(str, range(20)), "007", "x"]),
)


def prepared_fingerprint(data_dir, sources):
    options = PrepareConfig(
        data_dir=data_dir,
        dataset="any",
        ratings=tuple(sources),
        user_col="user",
        item_col="item",
        min_items_per_user=1,
        heldout_users=6,
        force=True,
    )
    prepare(options)
    return read_manifest(prepared_folder(data_dir, "any")).fingerprint


@settings(max_examples=25)
@given(st.data(), IDS, IDS, st.integers(0, 99))
def test_the_prepared_data_do_not_depend_on_files_and_formats(
    tmp_path_factory, data, users, items, seed
):
    numbers = random.Random(seed)
    ratings = [0.5, 3.5, 4.0, 5.0]
    rows = [(u, i, numbers.choice(ratings)) for u in users for i in items if numbers.random() < 0.9]
    numbers.shuffle(rows)
    folder = tmp_path_factory.mktemp("split")
    (folder / "parts").mkdir()
    ends = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    columns = partial(zip, ("user", "item", "rating"), strict=True)
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, len(rows)], strict=True)):
        kind = data.draw(st.sampled_from([*WRITERS]))
        part = dict(columns([*zip(*rows[start:end], strict=True)] or [[]] * 3))
        path = folder / "parts" / f"{number}"
        if kind != "json" or end > start:
            WRITERS[kind](path, **part)
    write_csv(folder / "whole", **dict(columns([*zip(*rows, strict=True)])))
    whole, split = folder / "whole", folder / "parts"
    assert prepared_fingerprint(folder, [split]) == prepared_fingerprint(folder, [whole])
    for block_rows in (data.draw(st.integers(3, 100)), 1 << 18):
        blocks = read([Source(path) for path in found([split])], block_rows=block_rows)
        assert blocks == read(whole)
