"""Titles are joined to the items of a data set by raw id."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vae.errors import UserError
from vae.load.config import Columns
from vae.recommend.titles import read_titles

NO_HEADER = {"user": "0", "item": "1", "header": False}


def read(path, item_ids, title_column="title", id_column=None, **layout):
    columns = Columns(**{"user": "user", "item": "film"} | layout)
    dataset = SimpleNamespace(name="tiny", item_ids=np.array(item_ids), columns=columns)
    titles = read_titles(path, title_column, dataset, id_column)
    return titles.astype(object).where(titles.notna(), None).tolist()


@pytest.mark.parametrize(
    ("ids", "rows", "titles"),
    [
        # In the order of the items, whatever the order of the rows.
        ([10, 2, 30], "a,Thirty,30\na,Other,99\nb,Ten,10\n", ["Ten", None, "Thirty"]),
        (["10", "2", "30"], "a,Thirty,30\na,Other,99\nb,Ten,10\n", ["Ten", None, "Thirty"]),
        # The last title of a repeated id counts.
        (["x", "y"], "a,first,x\na,é,y\nb,second,x\n", ["second", "é"]),
        # An empty title is not a missing one.
        (["x", "y"], "a,,x\n", ["", None]),
    ],
)
def test_titles_are_joined_by_id(tmp_path, ids, rows, titles):
    path = tmp_path / "films.csv"
    path.write_text("genre,title,film\n" + rows, encoding="utf-8-sig")
    assert read(path, ids) == titles


@pytest.mark.parametrize(
    ("text", "names", "layout"),
    [
        ("id,title\n1,Heat\n2,Ran\n", ("title", "id"), {}),
        ("id;name\n1;Heat\n2;Ran\n", ("name", "id"), NO_HEADER),
        ("film;title\n1;Heat\n2;Ran\n", (), {"separator": ","}),
        ("1::Heat::Crime\n2::Ran::War\n", ("1",), {}),
        ("1::Heat::Crime\n2::Ran::War\n", ("1", "0"), {}),
        ("1::Heat::Crime\n2::Ran::War\n", ("1",), NO_HEADER | {"separator": "::"}),
        ("T1<SEP>1<SEP>Mann<SEP>Heat\nT2<SEP>2<SEP>K<SEP>Ran\n", ("3", "1"), {}),
        ("film,title\n1,Heat\n2,Ran\n", ("1",), NO_HEADER | {"separator": "::"}),
        ("1\tHeat\n2\tRan\n", (), {}),
        ("film~~title\n1~~Heat\n2~~Ran\n", (), {"separator": "~~"}),
    ],
)
def test_columns_separator_and_header_of_titles_need_not_be_those_of_the_ratings(
    tmp_path, text, names, layout
):
    (tmp_path / "titles.txt").write_text(text)
    assert read(tmp_path / "titles.txt", [2, 1], *names, **layout) == ["Ran", "Heat"]


def test_encoding_and_quotes_of_titles_are_those_of_the_ratings(tmp_path):
    path = tmp_path / "movies.dat"
    path.write_bytes('1::Caf\u00e9::Drama\n2::7" disc::Comedy\n'.encode("latin-1"))
    layout = NO_HEADER | {"separator": "::", "encoding": "latin-1"}
    assert read(path, [2, 1], "1", **layout) == ['7" disc', "Caf\u00e9"]


@pytest.mark.parametrize("write", ["to_parquet", "to_json"])
def test_titles_may_be_parquet_or_json_lines(write, tmp_path):
    frame = pd.DataFrame({"film": [1, 2], "title": ["Heat", None]})
    options = {"orient": "records", "lines": True} if write == "to_json" else {}
    getattr(frame, write)(tmp_path / "titles", **options)
    assert read(tmp_path / "titles", [2, 1]) == ["", "Heat"]


@pytest.mark.parametrize(
    ("text", "layout", "sentence"),
    [
        (
            "id,name\n1,Heat\n",
            {},
            "--item_names {path}: has no column 'film' but 'id', 'name'; name the columns of ids "
            "and titles with --item_names_col and --title_col, by their numbers from 0 if there is "
            "no header row.",
        ),
        (
            "film,title\n1,Heat\n",
            NO_HEADER,
            "--title_col 'title': is not a column number, which tiny needs as it was prepared with "
            "--no_header; ids are in column 0, titles for example in column 1; or name the column "
            "of ids with --item_names_col.",
        ),
        ("film,title\n", {}, "--item_names {path}: has no rows."),
        (
            "film,title\n01,Heat\n",
            {},
            "--item_names {path}: no id in its column 'film' is an item of tiny; its ids are like "
            "'01', those of the data set like '1': write them in the same way.",
        ),
        ("film,title\n1.0,Heat\n", {}, "those of the data set like '1': write them in the same"),
    ],
)
def test_unusable_titles_are_one_sentence(tmp_path, text, layout, sentence):
    path = tmp_path / "titles.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read(path, [1], **layout)
    assert sentence.format(path=path) in str(caught.value)
