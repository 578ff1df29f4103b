"""Quotes in text files: around values or data, but never a way to lose rows without a word."""

import contextlib
import csv
import dataclasses
import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.config import parse_flags as parse_options
from vae.load.histories import read_histories
from vae.load.prepare import prepare
from vae.load.reading import text as text_rows
from vae.load.reading.files import Source
from vae.load.reading.interactions import read_interactions
from vae.load.store import open_dataset, prepared_folder, read_manifest
from vae.recommend.titles import read_titles

COLUMNS = Columns("user", "item")
UNQUOTED = dataclasses.replace(COLUMNS, quoting="none")
ADVICE = "if quotes are part of the values, prepare the data with --quoting none"


@pytest.fixture
def write(tmp_path):
    """Writes rows below a header with the columns user, item and artist; returns the path."""

    def write(rows, name="plays.tsv"):
        content = "\n".join(["user\titem\tartist", *rows, ""]).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


def plays(count):
    """Rows of plays by artists without quotes."""
    return [f"u{row}\ti{row}\tartist {row}" for row in range(count)]


def read(path, columns=COLUMNS):
    """The interactions as raw ids, in order."""
    found = read_interactions([Source(path)], columns, 0)
    users = found.users.values[found.users.codes].tolist()
    items = found.items.values[found.items.codes].tolist()
    return list(zip(users, items, strict=True))


def problem(path, columns=COLUMNS):
    """The sentence about a file that cannot be used, without the file's name."""
    with pytest.raises(UserError) as caught:
        read(path, columns)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "artist", ['the "weird al" band', '12"', 'a "', 'rock"n"roll', ' "Heroes"']
)
def test_a_quote_inside_an_unquoted_value_is_data(write, artist):
    rows = plays(100)
    rows[40] = rows[60] = f"{artist}\t{artist}\t{artist}"
    found = read(write(rows))
    assert len(found) == 100
    assert found[40] == found[60] == (artist, artist)


@pytest.mark.parametrize("artist", ['"weird al" yankovic', '"a""b"c', '""a', '"" '])
def test_text_after_a_closing_quote_is_refused_with_its_row(write, artist):
    rows = plays(100)
    rows[40] = f"u\ti\t{artist}"
    assert (
        problem(write(rows))
        == f"row 42: a quoted value has text after its closing quote; {ADVICE}."
    )


def test_opening_quotes_that_close_in_a_later_row_do_not_swallow_the_rows_between(write):
    rows = plays(551)
    for row in (100, 240):
        rows[row] = f'u\ti\t"weird al yankovic {row}'
    assert problem(write(rows)).startswith("row 102: ")


@pytest.mark.parametrize("name", ["plays.tsv", "plays.tsv.gz"])
@pytest.mark.parametrize("rows_after", [0, 1, 20_000, 100_000])
def test_a_quote_that_is_open_at_the_end_of_the_file_is_refused_with_its_row(
    write, name, rows_after
):
    rows = plays(120_000)
    rows[-1 - rows_after] = 'u\ti\t"Heroes'
    sentence = problem(write(rows, name))
    assert sentence.startswith(f"row {120_001 - rows_after}: a quote opens a value and is n")
    assert sentence.endswith(f" closed; {ADVICE}." if rows_after < 100_000 else f"; {ADVICE}.")


def test_an_open_quote_is_found_in_the_header_too(write):
    path = write(plays(5))
    path.write_text(path.read_text().replace("artist\n", '"artist\n', 1))
    assert problem(path).startswith("row 1: a quote opens a value and is never closed")
    path.write_text(path.read_text().replace("item", '"item', 1).replace('"artist', "artist"))
    assert problem(path).endswith("; close the quote that opens in row 1.")


def test_rows_are_counted_past_blank_lines_and_line_breaks_inside_values(write):
    rows = [*plays(3), "", 'u\ti\t"two\n\nlines"', "", "", 'u\ti\t"Heroes']
    assert problem(write(rows)).startswith("row 6: a quote opens a value")


@pytest.mark.parametrize("block_bytes", [40, 64, 1 << 20])
def test_quoted_values_may_hold_anything_wherever_blocks_end(write, monkeypatch, block_bytes):
    monkeypatch.setattr(text_rows, "_BLOCK_BYTES", block_bytes)
    values = ['"a\nb"', '"a\tb"', '"a ""b"" c"', '""', '""""', '"a\r\n\r\nb"', '"\t""\n"', 'a"b']
    rows = [f"u{row}\ti{row}\t{values[row % 8]}" for row in range(400)]
    assert read(write(rows)) == [(f"u{row}", f"i{row}") for row in range(400)]


VALUES = st.lists(st.sampled_from(["a", '"', '""', ",", "\n", "\r\n", " "]), max_size=6).map(
    "".join
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8), st.integers(24, 60))
def test_any_file_is_read_like_by_the_strict_reader_of_the_csv_module_or_refused(
    tmp_path_factory, values, block_bytes
):
    text = "user,item,artist\n" + "".join(f"u,{item}i,{artist}\n" for item, artist in values)
    try:
        rows = list(filter(None, csv.reader(io.StringIO(text, newline=""), strict=True)))
    except csv.Error:
        rows = []
    # A row of white space alone is a blank line to this reader, which other tests look at.
    assume(not any(len(row) == 1 and not row[0].strip() for row in rows))
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, newline="")
    sound = rows and all(len(row) == 3 and row[0] and row[1] for row in rows)
    if sound:
        assert read(path) == [(user, item) for user, item, _ in rows[1:]]
    else:
        problem(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "_BLOCK_BYTES", block_bytes)
        # A row must not be longer than a block.
        with contextlib.suppress(UserError):
            assert read(path) == [(user, item) for user, item, _ in rows[1:]]
            assert sound


def test_without_quoting_every_quote_is_data(write):
    rows = plays(100)
    values = ['"Heroes"', "Heroes", '"weird al" yankovic', '"open', 'closed"', '"', '""']
    rows[40:47] = [f"{value}\t{value}\t{value}" for value in values]
    found = read(write(rows), UNQUOTED)
    assert len(found) == 100
    assert found[40:47] == [(value, value) for value in values]


def test_with_quotes_around_values_both_spellings_are_one_id(write):
    rows = ['u\t"Heroes"\ta', "u\tHeroes\ta"]
    assert read(write(rows)) == [("u", "Heroes")] * 2


def test_without_quoting_names_in_the_header_keep_their_quotes(write):
    path = write(plays(2))
    path.write_text(path.read_text().replace("item", '"item"', 1))
    assert len(read(path, dataclasses.replace(UNQUOTED, item='"item"'))) == 2
    assert "has no column 'item' but 'user', '\"item\"'" in problem(path, UNQUOTED)


def test_without_quoting_a_separator_inside_quotes_is_refused(write):
    sentence = problem(write(['u\ti\t"a\tb"']), UNQUOTED)
    assert sentence.startswith("row 2: 4 columns where row 1 has 3; ")
    assert "drop --quoting none" in sentence


ITEMS = ['"Heroes"', "Heroes", '"open', "Low", "Lodger", 'Blackstar 12"']


@pytest.fixture
def prepared(tmp_path):
    """A data set of a file that does not quote its values, and what was said of it."""
    return prepared_from(tmp_path, ITEMS, "--quoting", "none")


def prepared_from(folder, items, *more):
    """A data set of 30 users who have played the items, and what was said of it."""
    rows = [f"u{user}\t{item}" for user in range(30) for item in items]
    (folder / "plays.tsv").write_text("\n".join(["user\titem", *rows, ""]))
    flags = (
        "--data_dir", folder, "--dataset", "plays", "--ratings", folder / "plays.tsv",
        "--user_col", "user", "--item_col", "item", "--rating_col", "none",
        "--heldout_users", 3, *more,
    )  # fmt: skip
    said = []
    prepare(parse_options([str(flag) for flag in flags]), said.append)
    return open_dataset(folder, "plays"), said


def test_the_prepared_data_keep_how_their_file_quotes(prepared, tmp_path):
    dataset, said = prepared
    assert said[0] == "180 rows read, 180 kept."
    assert set(dataset.item_ids) == set(ITEMS)
    assert dataset.columns.quoting == "none"
    assert read_manifest(prepared_folder(tmp_path, "plays")).provenance.flags["quoting"] == "none"
    quoted, said = prepared_from(tmp_path, ['"Heroes"', *"abcde"])
    assert said[0].startswith("Preparing again: --quoting changed from 'none' to 'minimal'; ")
    assert "Heroes" in quoted.item_ids


def test_line_breaks_inside_quoted_values_are_counted_aloud(tmp_path):
    _, said = prepared_from(tmp_path, ['"a\n\nb"', '"c\r\nd"', *"efgh"])
    assert said[:2] == [
        "90 line breaks are inside quoted values; if quotes are part of the values, each of them "
        "hides a row: prepare the data with --quoting none.",
        "180 rows read, 180 kept.",
    ]
    _, said = prepared_from(tmp_path, "abcdef")
    assert not any("line break" in line for line in said)


def test_histories_are_read_as_the_ratings_were(prepared, tmp_path):
    dataset, _ = prepared
    (tmp_path / "h.tsv").write_text(
        'user\titem\nann\t"Heroes"\nbob\tHeroes\ncat\t"open\ncat\tLow\n'
    )
    users = read_histories(tmp_path / "h.tsv", dataset)
    assert users.unknown_items == 0
    names = [set(dataset.item_ids[row.indices]) for row in users.seen]
    assert names == [{'"Heroes"'}, {"Heroes"}, {'"open', "Low"}]


def titles(dataset, path):
    """The title of each item that has one."""
    found = read_titles(path, "title", dataset).fillna("").tolist()
    return {
        item: title for item, title in zip(dataset.item_ids.tolist(), found, strict=True) if title
    }


def test_titles_are_read_as_the_ratings_were(prepared, tmp_path):
    dataset, _ = prepared
    rows = {'"Heroes"': '"Heroes" (1977)', "Heroes": '"open', "Low": 'Low 12"', "Lodger": '""'}
    path = tmp_path / "titles.tsv"
    path.write_text(
        "".join(f"{item}\t{title}\n" for item, title in {"item": "title", **rows}.items())
    )
    assert titles(dataset, path) == rows


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ('Low\t"Low\nLodger\tLodger\n', "row 2: a quote opens a value and is never closed"),
        ('Low\tLow\nLodger\t"Lodger" (1979)\n', "row 3: a quoted value has text after"),
        ('Low\t"Low\nLodger\t"Lodger\n', "row 2: a quoted value has text after"),
    ],
)
def test_a_title_does_not_swallow_the_next_row(prepared, tmp_path, rows, sentence):
    dataset = dataclasses.replace(prepared[0], columns=COLUMNS)
    (tmp_path / "titles.tsv").write_text("item\ttitle\n" + rows)
    with pytest.raises(UserError) as caught:
        titles(dataset, tmp_path / "titles.tsv")
    assert str(caught.value).startswith(f"--item_names {tmp_path / 'titles.tsv'}: {sentence}")
    assert "--quoting none" in str(caught.value)


def test_quoted_titles_may_hold_separators_quotes_and_line_breaks(prepared, tmp_path):
    dataset = dataclasses.replace(prepared[0], columns=COLUMNS)
    path = tmp_path / "titles.csv"
    path.write_text('item,title\nLow,"Low, ""side\ntwo"""\nLodger,the "1979" one\n')
    assert titles(dataset, path) == {"Low": 'Low, "side\ntwo"', "Lodger": 'the "1979" one'}


def test_titles_in_what_is_no_regular_file_are_refused_before_it_is_opened(prepared, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError) as caught:
            titles(prepared[0], path)
        assert str(caught.value).startswith(f"--item_names {path}: is not a regular file; ")
