"""Titles are joined to the items of a data set by raw id."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vae.errors import UserError
from vae.load.config import Columns
from vae.recommend.titles import read_titles


@pytest.fixture
def titles(tmp_path):
    """Reads titles of these raw ids from rows below a header; a missing one is None."""

    def read(item_ids, rows):
        path = tmp_path / "films.csv"
        path.write_text("genre,title,film\n" + rows, encoding="utf-8-sig")
        dataset = SimpleNamespace(
            name="tiny", item_ids=np.array(item_ids), columns=Columns("user", "film")
        )
        found = read_titles(path, "title", dataset)
        return found.astype(object).where(found.notna(), None).tolist()

    return read


@pytest.mark.parametrize("ids", [[10, 2, 30], ["10", "2", "30"]], ids=["integers", "strings"])
def test_titles_are_in_the_order_of_the_items_whatever_the_order_of_the_rows(titles, ids):
    assert titles(ids, "a,Thirty,30\na,Other,99\nb,Ten,10\n") == ["Ten", None, "Thirty"]


def test_the_last_title_of_a_repeated_id_counts(titles):
    assert titles(["x", "y"], "a,first,x\na,é,y\nb,second,x\n") == ["second", "é"]


def test_an_empty_title_is_not_a_missing_one(titles):
    assert titles(["x", "y"], "a,,x\n") == ["", None]


def read(path, item_ids, title_column="title", id_column=None, **layout):
    columns = Columns(**{"user": "user", "item": "film"} | layout)
    dataset = SimpleNamespace(name="tiny", item_ids=np.array(item_ids), columns=columns)
    return read_titles(path, title_column, dataset, id_column).tolist()


NO_HEADER = {"user": "0", "item": "1", "header": False}


@pytest.mark.parametrize(
    ("text", "names", "layout"),
    [
        ("id,title\n1,Heat\n2,Ran\n", ("title", "id"), {}),
        ("id;name\n1;Heat\n2;Ran\n", ("name", "id"), NO_HEADER),
        ("1::Heat::Crime\n2::Ran::War\n", ("1",), {}),
        ("1::Heat::Crime\n2::Ran::War\n", ("1", "0"), {}),
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


def test_titles_without_the_column_of_ids_are_told_the_flags_that_name_it(tmp_path):
    (tmp_path / "titles.csv").write_text("id,name\n1,Heat\n")
    with pytest.raises(UserError) as caught:
        read(tmp_path / "titles.csv", [1])
    assert str(caught.value) == (
        f"--item_names {tmp_path / 'titles.csv'}: has no column 'film' but 'id', 'name'; name the "
        "columns of ids and titles with --item_names_col and --title_col, by their numbers from 0 "
        "if there is no header row."
    )


def test_titles_without_a_header_have_the_ids_in_column_0(tmp_path):
    path = tmp_path / "movies.dat"
    path.write_bytes('1::Caf\u00e9::Drama\n2::7" disc::Comedy\n'.encode("latin-1"))
    layout = {"user": "0", "item": "1", "header": False, "separator": "::", "encoding": "latin-1"}
    assert read(path, [2, 1], "1", **layout) == ['7" disc', "Caf\u00e9"]
    with pytest.raises(UserError, match="--title_col 'title': is not a column number, which tiny"):
        read(path, [2, 1], **layout)


@pytest.mark.parametrize("write", ["to_parquet", "to_json"])
def test_titles_may_be_parquet_or_json_lines(write, tmp_path):
    frame = pd.DataFrame({"film": [1, 2], "title": ["Heat", None]})
    options = {"orient": "records", "lines": True} if write == "to_json" else {}
    getattr(frame, write)(tmp_path / "titles", **options)
    assert read(tmp_path / "titles", [2, 1]) == ["", "Heat"]


def test_the_separator_of_titles_need_not_be_that_of_the_ratings(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_text("film;title\n1;Heat\n")
    assert read(path, [1], separator=",") == ["Heat"]
