"""Titles are joined to the items of a data set by raw id."""

from types import SimpleNamespace

import numpy as np
import pytest

from vae.load.columns import Columns
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
