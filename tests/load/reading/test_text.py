"""Text files: dialects, encodings, separators, and quotes that never lose rows without a word."""

import codecs
import contextlib
import csv
import gzip
import io
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import run_prepare
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ratings import COLUMNS, LIKES, problem, read, sentence_of, write

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.histories import read_histories
from vae.load.reading.files import Source
from vae.load.reading.interactions import read_interactions
from vae.load.store import open_dataset, prepared_folder, read_manifest
from vae.recommend.titles import read_titles

UNQUOTED = replace(LIKES, quoting="none")
ADVICE = "if quotes are part of the values, prepare the data with --quoting none"
RATED = "user,item,rating\n"

DIALECTS = {
    "bom": b"\xef\xbb\xbfuser,item,rating\n1,2,5\n3,4,5\n",
    "crlf": b"user,item,rating\r\n1,2,5\r\n3,4,5\r\n",
    "cr": b"user,item,rating\r1,2,5\r3,4,5\r",
    "quotes": b'"user","item","rating"\n"1","2","5"\n"3","4","5"\n',
    "all at once": b'\xef\xbb\xbf"user",item,rating\r\n1,2,5\r\n3,"4",5',
    "no last newline": b"user,item,rating\n1,2,5\n3,4,5",
    "blank lines": b"user,item,rating\n\n1,2,5\n3,4,5\n\n\n",
    "white space": b"  \nuser,item,rating\n \t\n1,2,5\n\n   \n3,4,5\n \n",
    "white space and crlf": b"  \r\nuser,item,rating\r\n \t\r\n1,2,5\r\n\r\n3,4,5\r\n \r\n",
    "white space and quotes": b' \nuser,item,rating\n \t\n"1",2,5\n\n   \n3,4,5\n \n',
    "not UTF-8 in another column": b"note,rating,item,user\n\xff,5,2,1\nx,5,4,3\n",
    "utf-16": (RATED + "1,2,5\n3,4,5\n").encode("utf-16"),
    "utf-32": (RATED + "1,2,5\n3,4,5\n").encode("utf-32"),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_the_usual_dialects_are_understood(tmp_path, name):
    path = write(tmp_path / "r.csv", DIALECTS[name])
    for block_rows in (4 if "utf" in name else 1, 1 << 18):  # the header is in the first one
        assert read(path, block_rows=block_rows) == [(1, 2), (3, 4)]


LAYOUTS = {
    "semicolon": ("user;item;rating\n1;2;5\n3;4;5\n", replace(COLUMNS, separator=";")),
    "::": ("1::2::5\n3::4::5\n", {"separator": "::"}),
    "white space": ("1 2  5\n\t3\t4 5 \n", {"separator": "whitespace"}),
    "tabs": ("1\t2\t5\n3\t4\t5\n", {}),
    "decimal comma": ("1;2;5,0\n3;4;4,0\n5;6;3,9\n", {"decimal": ","}),
    "comments": ("# likes\n\n1,2,5\n\n   \n# more\n3,4,5\n", {"comment": "#"}),
    "comments and a header": ("#\n\n" + RATED + "1,2,5\n#\n3,4,5\n", replace(COLUMNS, comment="#")),
    "a mark": ("\ufeff1,2,5\n3,4,5\n", {}),
    "latin-1": ("1,2,5\n3,4,5\n", {"encoding": "latin-1"}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_of_other_layouts_are_read(tmp_path, name):
    text, layout = LAYOUTS[name]
    if isinstance(layout, dict):
        layout = Columns("0", "1", "2", header=False, **layout)
    assert read(write(tmp_path / "r", text), layout) == [(1, 2), (3, 4)]


@pytest.mark.parametrize("separator", ["\t", ";", "|", "::", " ", "  \t "])
def test_a_separator_is_guessed_where_one_alone_fits_and_that_is_said(tmp_path, separator):
    path = write(tmp_path / "r.csv", f"{RATED}1,2,5\n".replace(",", separator))
    assert read(path) == [(1, 2)]
    shown = "white space" if " " in separator else repr(separator)
    assert read_interactions([Source(path)], COLUMNS, 4.0).notes == (
        f"{path}: assuming {shown} between columns; prepare the data with --sep to set it.",
    )


def test_a_separator_follows_from_the_name_or_the_flag(tmp_path):
    assert read(write(tmp_path / "r.tsv", f"{RATED}1,2,5\n")) == [(1, 2)]
    assert read(write(tmp_path / "r.tsv", f"{RATED}1,2,5\n".replace(",", "\t"))) == [(1, 2)]
    sentence = problem(write(tmp_path / "r", RATED + "1,2,5\n"), replace(COLUMNS, separator=";"))
    assert sentence.startswith("has no column 'user' but 'user,item,rating'; name the separator")


@pytest.mark.parametrize("content", [b"", b"\n", codecs.BOM_UTF8, codecs.BOM_UTF8 + b"\r\n"])
def test_an_empty_file_is_reported(tmp_path, content):
    sentence = "is empty; add a header row with the names of the columns."
    assert problem(write(tmp_path / "r.csv", content)) == sentence
    assert problem(write(tmp_path / "r.csv.gz", gzip.compress(content))) == sentence
    for end in (b"", b"\n", b"\r\n", b"\n\n\n"):
        assert problem(write(tmp_path / "r.csv", RATED.strip().encode() + end)) == "no rows."


NUMBERED = Columns("0", "9", None, separator=",", header=False)
HEADERS = {
    "twice": (
        "user,item,item,rating\n1,2,3,5\n",
        "has 2 columns named 'item'; rename all but one.",
    ),
    "data": (
        "196,242,3\n186,302,3\n",
        "has no column 'user' but '196', '242', '3'; row 1 looks like data: for a file without a "
        "header pass --no_header and the numbers of the columns, such as --user_col 0 --item_col 1 "
        "--rating_col 2.",
    ),
    "not UTF-8": (
        b"us\xe9r,item,rating\n1,2,5\n",
        "row 1: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1.",
    ),
    "UTF-16 without a mark": (
        f"{RATED}a,1,5\n".encode("utf-16-le"),
        "prepare the data with --encoding, e.g. utf-16-le.",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_used_is_told(tmp_path, name):
    content, sentence = HEADERS[name]
    assert problem(write(tmp_path / "r", content)).endswith(sentence)


def test_columns_without_a_header_are_named_by_their_numbers(tmp_path):
    assert problem(write(tmp_path / "r", "a,1,5\n"), NUMBERED) == (
        "has no column '9' but '0', '1', '2'; columns are numbered from 0; pass --sep if the "
        "values are split in another way."
    )


def test_a_header_that_is_none_is_not_repeated_at_length(tmp_path):
    for header in ("x" * 300_000, ",".join(f"c{number}" for number in range(9_000))):
        assert len(problem(write(tmp_path / "r", header + "\n1,2,5\n"))) < 400


RAGGED = "quote values that contain the separator"
ROWS = {
    "7,8": f"row 902: 2 columns where row 1 has 3; {RAGGED}.",
    "7,8,5,6": f"row 902: 4 columns where row 1 has 3; {RAGGED}.",
    "7": f"row 902: 1 columns where row 1 has 3; {RAGGED}.",
    '7,"8"': f"row 902: 2 columns where row 1 has 3; {RAGGED}.",
    '""': f"row 902: 1 columns where row 1 has 3; {RAGGED}.",
    "\udcff,8,5": "row 902: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1.",
    '\udcff,"8",5': "row 902: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1.",
    "7,8,bad": "column 'rating', row 902: 'bad' is not a number.",
    '7,"8",bad': "column 'rating', row 902: 'bad' is not a number.",
    '7,"8,5': f"row 902: a quote opens a value and is never closed; {ADVICE}.",
    '7,8,"5"0': f"row 902: a quoted value has text after its closing quote; {ADVICE}.",
    "\ufeff7,8,5": "row 902: begins with a byte-order mark, as where files were joined; pass the "
    "files one by one, or remove the mark and the second header.",
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:9])
@pytest.mark.parametrize("blank", ["", " \n"])
def test_rows_are_counted_across_blocks_and_blank_lines(tmp_path, row, blank):
    rows = [f"{number},{number},5" for number in range(1000)]
    rows[10] = "bob,1,5"  # turns ids that were numbers at first into strings
    rows[500] = f"{blank}\n{rows[500]}"
    rows[900] = row
    text = "\n".join(["user,item,rating", *rows, ""]).encode(errors="surrogateescape")
    path = write(tmp_path / "r", text)
    for block_rows in (8, 1 << 18):
        assert problem(path, block_rows=block_rows) == ROWS[row]


@pytest.mark.parametrize("row", ["7,8", '7,"8,5', "\ufeff7,8,5", "7,8,x"])
def test_no_thread_outlives_a_file_that_is_refused(tmp_path, row):
    path = write(tmp_path / "r", f"{RATED}{row}\n" + "7,8,5\n" * 1000)
    before = set(threading.enumerate())  # one that an earlier test left may end
    with pytest.raises(UserError) as caught:
        read(path, block_rows=8)
    assert not set(threading.enumerate()) - before, caught.value


@pytest.mark.parametrize(
    ("block_rows", "sentence"), [(1 << 12, "has more than"), (1 << 18, "a quote opens a value and")]
)
def test_a_row_that_does_not_end_is_told(tmp_path, block_rows, sentence):
    path = write(tmp_path / "r", f"{RATED}1,2,5\n{'7' * (1 << 22)}\n")
    error = problem(path, block_rows=block_rows)
    assert error.startswith(f"row 3: {sentence}")
    assert "2,097,152 bytes" in error
    assert "end of line" in error


ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "utf-32", "shift_jis", "euc-jp", "gb18030", "big5"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_cut_within_its_last_character_is_refused(tmp_path, encoding, compress):
    columns, path = Columns("user", "item", encoding=encoding), tmp_path / "r"
    write(path, compress("user,item,rating\na,1,5\nb,2\u65e5,4".encode(encoding)))
    assert read(path, columns) == [("a", "1"), ("b", "2\u65e5")]
    sentence = problem(
        write(path, compress("user,item\na,1\nb,2\u65e5".encode(encoding)[:-1])), columns
    )
    assert sentence.startswith(f"row 3: is not valid {encoding.replace('utf-8', 'UTF-8')}; prepare")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("parts", [("user,item\na,1\n", "b,2\n"), ("t,user,item\n0,a,1\n",) * 2])
def test_a_byte_order_mark_between_files_that_were_joined_is_refused(tmp_path, parts, encoding):
    path = write(tmp_path / "r", b"".join(part.encode(encoding) for part in parts))
    assert problem(path, LIKES).startswith("row 3: begins with a byte-order mark, as where files w")


def test_an_encoding_is_named_by_its_mark_its_flag_or_the_row_that_is_not_in_it(tmp_path):
    content = f"{RATED}a,1,5\né,2,5\n".encode("latin-1")
    path = write(tmp_path / "r", content)
    assert read(path, replace(COLUMNS, encoding="latin-1")) == [("a", 1), ("é", 2)]
    assert problem(path, replace(COLUMNS, encoding="ascii")) == (
        "row 3: is not valid ascii; prepare the data with the right --encoding."
    )
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        write(path, content.decode("latin-1").encode(encoding))
        assert read(path, replace(COLUMNS, encoding="ascii")) == [("a", 1), ("é", 2)]
    write(path, RATED)
    assert problem(path, replace(COLUMNS, encoding="utf-16")) == (
        "begins without a byte-order mark, so it is not in utf-16; convert the file, or prepare "
        "the data with its --encoding, e.g. utf-16-le or utf-8."
    )


def plays(count):
    """Rows of plays by artists without quotes."""
    return [f"u{row}\ti{row}\tartist {row}" for row in range(count)]


def write_plays(path, rows):
    content = "\n".join(["user\titem\tartist", *rows, ""]).encode()
    return write(path, gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize(
    "artist", ['the "weird al" band', '12"', 'a "', 'rock"n"roll', ' "Heroes"']
)
def test_a_quote_inside_an_unquoted_value_is_data(tmp_path, artist):
    rows = plays(100)
    rows[40] = rows[60] = f"{artist}\t{artist}\t{artist}"
    interactions = read(write_plays(tmp_path / "plays.tsv", rows), LIKES)
    assert len(interactions) == 100
    assert interactions[40] == interactions[60] == (artist, artist)


OPEN = 'u\ti\t"weird al yankovic'
QUOTES = [
    *(
        (
            [*plays(40), f"u\ti\t{artist}"],
            f"row 42: a quoted value has text after its closing quote; {ADVICE}.",
        )
        for artist in ('"weird al" yankovic', '"a""b"c', '""a', '"" ')
    ),
    # Opening quotes that close in a later row do not swallow the rows between.
    ([*plays(100), OPEN, *plays(139), OPEN], "row 102: a quoted value has text after"),
    # Blank lines, and line breaks inside values, are no rows.
    (
        [*plays(3), "", 'u\ti\t"two\n\nlines"', "", OPEN],
        "row 6: a quote opens a value and is never",
    ),
]


@pytest.mark.parametrize(("rows", "sentence"), QUOTES)
def test_malformed_quotes_are_refused_with_their_row(tmp_path, rows, sentence):
    path = write_plays(tmp_path / "plays.tsv", [*rows, *plays(10)])
    assert problem(path, LIKES).startswith(sentence)


@pytest.mark.parametrize("name", ["plays.tsv", "plays.tsv.gz"])
@pytest.mark.parametrize("rows_after", [0, 1, 20_000, 100_000])
def test_a_quote_that_is_open_at_the_end_of_the_file_is_refused_with_its_row(
    tmp_path, name, rows_after
):
    rows = plays(120_000)
    rows[-1 - rows_after] = 'u\ti\t"Heroes'
    sentence = problem(write_plays(tmp_path / name, rows), LIKES)
    assert sentence.startswith(f"row {120_001 - rows_after}: a quote opens a value and is n")
    assert sentence.endswith(f"; {ADVICE}.")


def test_an_open_quote_is_found_in_the_header_too(tmp_path):
    path = write_plays(tmp_path / "plays.tsv", plays(5))
    write(path, path.read_text().replace("artist\n", '"artist\n', 1))
    assert problem(path, LIKES).startswith("row 1: a quote opens a value and is never closed")
    write(path, path.read_text().replace("item", '"item', 1).replace('"artist', "artist"))
    assert problem(path, LIKES).endswith("; close the quote that opens in row 1.")


@pytest.mark.parametrize("block_rows", [1, 2, 1 << 18])
def test_quoted_values_may_hold_anything_wherever_blocks_end(tmp_path, block_rows):
    values = ['"a\nb"', '"a\tb"', '"a ""b"" c"', '""', '""""', '"a\r\n\r\nb"', '"\t""\n"', 'a"b']
    rows = [f"u{row}\ti{row}\t{values[row % 8]}" for row in range(400)]
    path = write_plays(tmp_path / "plays.tsv", rows)
    assert read(path, LIKES, block_rows=block_rows) == [(f"u{r}", f"i{r}") for r in range(400)]


VALUES = st.lists(st.sampled_from(["a", '"', '""', ",", "\n", "\r\n", " "]), max_size=6).map(
    "".join
)


@settings(max_examples=100)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8), st.integers(1, 3))
def test_any_file_is_read_like_by_the_strict_reader_of_the_csv_module_or_refused(
    tmp_path_factory, values, block_rows
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
    sound = rows and all(len(row) == 3 and row[0] and row[1].strip() for row in rows)
    if sound:
        assert read(path, LIKES) == [(user, item) for user, item, _ in rows[1:]]
    else:
        problem(path, LIKES)
    with contextlib.suppress(UserError):  # the header must not be longer than a block
        interactions = read(path, LIKES, block_rows=block_rows)
        assert interactions == [(user, item) for user, item, _ in rows[1:]]
        assert sound


def test_without_quoting_every_quote_is_data(tmp_path):
    rows = plays(100)
    values = ['"Heroes"', "Heroes", '"weird al" yankovic', '"open', 'closed"', '"', '""']
    rows[40:47] = [f"{value}\t{value}\t{value}" for value in values]
    path = write_plays(tmp_path / "plays.tsv", rows)
    interactions = read(path, UNQUOTED)
    assert len(interactions) == 100
    assert interactions[40:47] == [(value, value) for value in values]
    write_plays(path, ['u\t"Heroes"\ta', "u\tHeroes\ta"])
    assert read(path, LIKES) == [("u", "Heroes")] * 2


def test_without_quoting_names_in_the_header_keep_their_quotes(tmp_path):
    path = write_plays(tmp_path / "plays.tsv", plays(2))
    write(path, path.read_text().replace("item", '"item"', 1))
    assert len(read(path, replace(UNQUOTED, item='"item"'))) == 2
    assert "has no column 'item' but 'user', '\"item\"'" in problem(path, UNQUOTED)


def test_without_quoting_a_separator_inside_quotes_is_refused(tmp_path):
    path = write_plays(tmp_path / "plays.tsv", ['u\ti\t"a\tb"'])
    sentence = problem(path, UNQUOTED)
    assert sentence.startswith("row 2: 4 columns where row 1 has 3; ")
    assert "drop --quoting none" in sentence


ITEMS = ['"Heroes"', "Heroes", '"open', "Low", "Lodger", 'Blackstar 12"']


def prepared_from(folder, items, *more):
    """A data set of 30 users who have played the items, and what was said of it."""
    rows = [f"u{user}\t{item}" for user in range(30) for item in items]
    write(folder / "plays.tsv", "\n".join(["user\titem", *rows, ""]))
    done = run_prepare(
        "--data_dir", folder, "--dataset", "plays", "--ratings", folder / "plays.tsv",
        "--user_col", "user", "--item_col", "item", "--rating_col", "none",
        "--heldout_users", 3, *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.endswith(" ...")]
    return open_dataset(folder, "plays"), said


@pytest.fixture
def prepared(tmp_path):
    """A data set of a file that does not quote its values, and what was said of it."""
    return prepared_from(tmp_path, ITEMS, "--quoting", "none")


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
    path = write(
        tmp_path / "h.tsv", 'user\titem\nann\t"Heroes"\nbob\tHeroes\ncat\t"open\ncat\tLow\n'
    )
    users = read_histories(path, dataset)
    assert users.unknown_items == 0
    names = [set(dataset.item_ids[row.indices]) for row in users.seen]
    assert names == [{'"Heroes"'}, {"Heroes"}, {'"open', "Low"}]


def titles(dataset, path):
    """The title of each item that has one."""
    texts = read_titles(path, "title", dataset).fillna("").tolist()
    return {item: text for item, text in zip(dataset.item_ids.tolist(), texts, strict=True) if text}


def test_titles_are_read_as_the_ratings_were(prepared, tmp_path):
    rows = {'"Heroes"': '"Heroes" (1977)', "Heroes": '"open', "Low": 'Low 12"', "Lodger": '""'}
    lines = "".join(f"{item}\t{title}\n" for item, title in {"item": "title", **rows}.items())
    assert titles(prepared[0], write(tmp_path / "titles.tsv", lines)) == rows


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ('Low\t"Low\nLodger\tLodger\n', "row 2: a quote opens a value and is never closed"),
        ('Low\tLow\nLodger\t"Lodger" (1979)\n', "row 3: a quoted value has text after"),
        ('Low\t"Low\nLodger\t"Lodger\n', "row 2: a quoted value has text after"),
    ],
)
def test_a_title_does_not_swallow_the_next_row(prepared, tmp_path, rows, sentence):
    path = write(tmp_path / "titles.tsv", "item\ttitle\n" + rows)
    with pytest.raises(UserError) as caught:
        titles(replace(prepared[0], columns=LIKES), path)
    assert sentence_of(caught.value, f"--item_names {path}").startswith(sentence)
    assert "--quoting none" in str(caught.value)


def test_quoted_titles_may_hold_separators_quotes_and_line_breaks(prepared, tmp_path):
    text = 'item,title\nLow,"Low, ""side\ntwo"""\nLodger,the "1979" one\n'
    path = write(tmp_path / "titles.csv", text)
    dataset = replace(prepared[0], columns=LIKES)
    assert titles(dataset, path) == {"Low": 'Low, "side\ntwo"', "Lodger": 'the "1979" one'}


def test_titles_in_what_is_no_regular_file_are_refused_before_it_is_opened(prepared, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError) as caught:
            titles(prepared[0], path)
        assert str(caught.value).startswith(f"--item_names {path}: is not a regular file; ")
