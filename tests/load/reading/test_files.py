"""Several files, folders of parts, and the same rows in whatever files they come."""

import csv
import gzip
import io
import os
import random
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.errors import UserError
from vae.load.config import Columns, PrepareConfig
from vae.load.prepare import prepare
from vae.load.reading import interactions as interactions_module
from vae.load.reading import tables
from vae.load.reading import text as text_rows
from vae.load.reading.files import Source, find_sources
from vae.load.reading.interactions import read_interactions
from vae.load.store import prepared_folder, read_manifest

COLUMNS = Columns("user", "item", "rating")
HEADER = ["user", "item", "rating"]


def write_text(path, rows, separator=","):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator).writerows([HEADER, *rows])
    content = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_parquet(path, rows):
    """Ids as numbers if all of them are, as pandas and others write them."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    arrays = []
    for column in columns[:2]:
        plain = all(text.isdigit() and str(int(text)) == text for text in column)
        arrays.append(pa.array([int(text) for text in column] if plain else column))
    arrays.append(pa.array([float(text) for text in columns[2]]))
    pq.write_table(pa.table(arrays, names=HEADER), path, row_group_size=7)


def interactions(files, threshold=4.0):
    """The interactions as raw ids, in order."""
    found = read_interactions([*map(as_source, files)], COLUMNS, threshold)
    users = found.users.values[found.users.codes].tolist()
    items = found.items.values[found.items.codes].tolist()
    return list(zip(users, items, strict=True))


def as_source(file):
    return file if isinstance(file, Source) else Source(file)


def ratings_files(paths):
    """The paths of the files that are found."""
    return [source.path for source in find_sources(paths)[0]]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("user,item,rating\n1,2,5\n")


def test_a_folder_is_read_by_its_parts_in_the_order_of_their_names(tmp_path):
    touch(tmp_path, "part-2.csv", "part-1.csv", "year=1999/part-0.csv", ".part-3.crc", "_SUCCESS")
    touch(tmp_path, "_temporary/part-4.csv", ".hidden/part-5.csv")
    names = ["part-1.csv", "part-2.csv", "year=1999/part-0.csv"]
    assert ratings_files([tmp_path]) == [tmp_path / name for name in names]


def test_files_and_folders_are_read_in_the_order_they_are_given_in(tmp_path):
    touch(tmp_path, "b.csv", "folder/c.csv", "a.csv")
    given = [tmp_path / "b.csv", tmp_path / "folder", tmp_path / "a.csv"]
    assert ratings_files(given) == [given[0], tmp_path / "folder/c.csv", given[2]]


def test_a_folder_named_like_a_hidden_one_is_read_if_it_is_named(tmp_path):
    touch(tmp_path, ".cache/_all/part.csv")
    assert ratings_files([tmp_path / ".cache/_all"]) == [tmp_path / ".cache/_all/part.csv"]


def test_a_folder_without_parts_is_refused(tmp_path):
    touch(tmp_path, "_SUCCESS", ".part.csv.crc")
    with pytest.raises(UserError) as caught:
        ratings_files([tmp_path])
    assert str(caught.value) == f"{tmp_path}: is a folder without ratings files."


def test_a_missing_source_is_refused_whatever_is_beside_it(tmp_path):
    touch(tmp_path, "a.csv")
    with pytest.raises(UserError, match=r"b\.csv: file not found\.$"):
        ratings_files([tmp_path / "a.csv", tmp_path / "b.csv"])


TABLES = {
    "Delta Lake": ("_delta_log/00000000000000000001.json", "part-0.parquet"),
    "Iceberg": ("metadata/v1.metadata.json", "data/user=1/part-0.parquet"),
    "Hudi": (".hoodie/hoodie.properties", "2026/part-0.parquet"),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("depth", range(4))
def test_a_table_with_a_log_is_refused_whichever_of_its_folders_or_files_is_given(
    tmp_path, kind, depth
):
    table = tmp_path / "lake" / "ratings"
    touch(table, *TABLES[kind])
    given = [tmp_path / "lake", table, (table / TABLES[kind][1]).parent, table / TABLES[kind][1]]
    name = f"{kind.lower().partition(' ')[0]}"
    with pytest.raises(UserError) as caught:
        ratings_files([given[depth]])
    assert str(caught.value) == (
        f"{table}: is a table of {kind}, whose log decides which rows of its files count; export "
        f'its current rows, e.g. in Spark: spark.read.format("{name}").load("{table}")'
        '.write.parquet("ratings"), and pass these.'
    )


def test_text_beside_a_table_and_a_folder_with_other_metadata_are_read(tmp_path):
    touch(tmp_path, "_delta_log/0.json", "h.csv", "b/metadata/site.metadata.json", "b/p.parquet")
    assert ratings_files([tmp_path / "h.csv"]) == [tmp_path / "h.csv"]
    (tmp_path / "_delta_log").rename(tmp_path / "log")
    assert ratings_files([tmp_path / "b/p.parquet"]) == [tmp_path / "b/p.parquet"]


@pytest.fixture
def special(tmp_path):
    """Paths of what can be opened and is neither a regular file nor a pipe."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        yield [tmp_path / "socket", Path("/dev/zero"), Path("/dev/null")]


def test_what_is_no_regular_file_is_refused_before_it_is_opened(special, tmp_path):
    for path in special:
        with pytest.raises(UserError) as caught:
            ratings_files([path])
        assert str(caught.value).startswith(f"{path}: is not a regular file; ")
        link = tmp_path / "link.csv"
        link.symlink_to(path)
        with pytest.raises(UserError, match=r"link\.csv: is not a regular file; "):
            ratings_files([link])
        link.unlink()


def test_a_part_that_is_no_regular_file_is_refused_and_not_left_out(tmp_path):
    touch(tmp_path, "part-1.csv")
    os.mkfifo(tmp_path / "part-2.csv")
    with pytest.raises(UserError, match=r"part-2\.csv: is not a regular file; "):
        ratings_files([tmp_path])
    (tmp_path / "part-2.csv").unlink()
    (tmp_path / "part-2.csv").symlink_to("gone.csv")
    with pytest.raises(UserError, match=r"part-2\.csv: file not found\.$"):
        ratings_files([tmp_path])


def test_files_of_all_formats_are_read_one_after_another(tmp_path):
    write_text(tmp_path / "1.csv", [("a", "1", "5")])
    write_text(tmp_path / "2.tsv", [("b", "2", "5")], "\t")
    write_text(tmp_path / "3.csv.gz", [("a", "3", "5")])
    write_parquet(tmp_path / "4.parquet", [("c", "1", "4"), ("b", "9", "3")])
    files = ratings_files([tmp_path])
    assert interactions(files) == [("a", 1), ("b", 2), ("a", 3), ("c", 1)]


def test_ids_are_numbers_if_all_of_a_column_over_all_files_are(tmp_path):
    write_parquet(tmp_path / "1.parquet", [("7", "10", "5")])
    write_text(tmp_path / "2.csv", [("x", "9", "5")])
    assert interactions(ratings_files([tmp_path])) == [("7", 10), ("x", 9)]


def test_a_part_without_rows_does_no_harm_but_one_part_needs_some(tmp_path):
    write_text(tmp_path / "1.csv", [])
    write_parquet(tmp_path / "2.parquet", [])
    with pytest.raises(UserError) as caught:
        interactions(ratings_files([tmp_path]))
    assert str(caught.value) == f"{tmp_path / '1.csv'} and 1 more: no rows."
    write_text(tmp_path / "3.csv", [("1", "2", "5")])
    assert interactions([tmp_path / "1.csv", tmp_path / "3.csv"]) == [(1, 2)]


@pytest.mark.parametrize("name", ["2.csv", "2.parquet"])
def test_a_problem_names_its_file_column_and_row(tmp_path, name):
    write_text(tmp_path / "1.csv", [("1", "2", "5")] * 100)
    (write_text if name == "2.csv" else write_parquet)(
        tmp_path / name, [("1", "2", "5"), ("1", "2", "nan")]
    )
    row = 3 if name == "2.csv" else 2  # a text file's first row is its header
    with pytest.raises(UserError) as caught:
        interactions(ratings_files([tmp_path]))
    assert str(caught.value).startswith(
        f"{tmp_path / name}: column 'rating', row {row}: the value is missing"
    )


IDS = st.one_of(
    st.just([str(number) for number in range(8, 30)]),
    st.just([f"id{number}" for number in range(22)]),
    st.just([*(str(number) for number in range(20)), "007", "x"]),
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
    prepare(options, lambda _: None)
    return read_manifest(prepared_folder(data_dir, "any")).fingerprint


@settings(max_examples=25, deadline=None)
@given(st.data(), IDS, IDS, st.integers(0, 99))
def test_the_prepared_data_do_not_depend_on_files_formats_and_blocks(
    tmp_path_factory, data, users, items, seed
):
    numbers = random.Random(seed)
    rows = [
        (user, item, numbers.choice(["0.5", "3.5", "4", "5.0"]))
        for user in users
        for item in items
        if numbers.random() < 0.9
    ]
    numbers.shuffle(rows)
    folder = tmp_path_factory.mktemp("split")
    write_text(folder / "whole.csv", rows)
    parts = folder / "parts"
    parts.mkdir()
    ends = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, len(rows)], strict=True)):
        ending = data.draw(st.sampled_from(["csv", "tsv", "csv.gz", "tsv.gz", "parquet", "data"]))
        path = parts / f"part-{number}.{ending}"
        if ending in ("parquet", "data"):
            write_parquet(path, rows[start:end])
        else:
            write_text(path, rows[start:end], "\t" if "tsv" in ending else ",")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "_BLOCK_BYTES", data.draw(st.integers(64, 1024)))
        patch.setattr(tables, "_BLOCK_ROWS", data.draw(st.integers(1, 100)))
        patch.setattr(interactions_module, "_PART", data.draw(st.integers(1, 100)))
        split = prepared_fingerprint(folder, [parts])
    assert split == prepared_fingerprint(folder, [folder / "whole.csv"])
