"""The table of well-known data sets in docs/own-data.md, on small files of their shapes."""

import gzip
import json
import re
import shlex
import subprocess

import pytest
from helpers import ROOT, run_prepare

from vae.load.store import open_dataset

USERS, ITEMS = 30, 8
TEXT = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
ROWS = {
    name: (file, flags)
    for name, file, flags in re.findall(
        r"^\| ([^|]+) \| `([^`]+)` \| `(--ratings [^`]+)` \|$", TEXT, re.M
    )
}


def table(row, header=""):
    """The text of a file with a row per user and item; ``row`` makes the row."""
    lines = [row(user, item) for user in range(USERS) for item in range(ITEMS)]
    return "".join(f"{line}\n" for line in ([header] if header else []) + lines)


def reviews(user, item, rating):
    return table(
        lambda u, i: json.dumps({user: f"A{u}", item: f"B{i:04}", rating: 5.0, "text": "é"})
    )


SHAPES = {
    "MovieLens 100K": table(lambda u, i: f"{u}\t{i}\t5\t881250949"),
    "MovieLens 1M, 10M": table(lambda u, i: f"{u}::{i}::5::978300760"),
    "MovieLens 20M, 25M, 32M": table(
        lambda u, i: f"{u},{i},4.5,1112486027", "userId,movieId,rating,timestamp"
    ),
    "Last.fm 360K": table(lambda u, i: f'{u:040x}\t\t"artist {i}\t17'),
    "Last.fm 1K": table(lambda u, i: f"user_{u:06}\t2009-05-04T23:08:57Z\tf1\tDeep {i}\t\tTitle"),
    "Million Song (Echo Nest taste profile)": table(lambda u, i: f"{u:040x}\tSO{i}\t1"),
    "Amazon, ratings of 2014": table(lambda u, i: f"A{u},{i:010},5.0,1365811200"),
    "Amazon, reviews of 2014 and 2018": reviews("reviewerID", "asin", "overall"),
    "Amazon, ratings of 2023": table(
        lambda u, i: f"A{u},B{i},4.0,1549866158", "user_id,parent_asin,rating,timestamp"
    ),
    "Yelp": reviews("user_id", "business_id", "stars"),
    "Steam-200k": table(lambda u, i: f'{u},"Game, the {i}",play,1.5,0'),
    "BookCrossing": table(
        lambda u, i: f'"{u}";"03451{i}\xe9";"7"', '"User-ID";"ISBN";"Book-Rating"'
    ).encode("latin-1"),
    "Goodreads": table(lambda u, i: f"{u},{i},1,5,0", "user_id,book_id,is_read,rating,is_reviewed"),
    "RetailRocket": table(
        lambda u, i: f"1433221332117,{u},view,{i},",
        "timestamp,visitorid,event,itemid,transactionid",
    ),
    "H&M": table(
        lambda u, i: f"2018-09-20,{u:064x},066371300{i},0.05,2",
        "t_dat,customer_id,article_id,price,sales_channel_id",
    ),
    "Gowalla": table(lambda u, i: f"{u}\t2010-10-19T23:55:27Z\t30.2\t-97.7\t{i}"),
    "Pinterest": table(lambda u, i: f"{u}\t{i}\t1.0\t0"),
    "Jester": table(lambda u, i: f"{u}\t\t{i}\t\t5.469"),
    "Anime": table(lambda u, i: f"{u},{i},{-1 if i == 7 else 8}", "user_id,anime_id,rating"),
    "Online Retail II": table(
        lambda u, i: f"489434,85{i}A,\"BOX, \"\"RED\"\"\",12,2009-12-01 07:45:00,6.95,{u}.0,France",
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
    )
    + "489434,85A,x,1,2009-12-01 07:45:00,6.95,,France\n",
}  # fmt: skip


def prepared(tmp_path, file, flags):
    """The data set that the flags of a row prepare."""
    done = run_prepare(
        "--data_dir", tmp_path, "--dataset", "known", "--heldout_users", 3,
        *(tmp_path / file if flag == "FILE" else flag for flag in shlex.split(flags)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return open_dataset(tmp_path, "known"), done.stdout


@pytest.mark.parametrize("name", SHAPES)
def test_the_flags_of_a_well_known_data_set_read_a_file_of_its_shape(name, tmp_path):
    file, flags = ROWS[name]
    content = SHAPES[name]
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
    dataset, _ = prepared(tmp_path, file, flags)
    assert len(dataset.train_user_ids) == USERS - 6
    assert len(dataset.item_ids) == ITEMS - (name == "Anime")
    assert (dataset.train.getnnz(axis=1) == len(dataset.item_ids)).all()


@pytest.mark.parametrize(
    ("name", "source", "content"),
    [
        (
            "Netflix prize",
            "combined_data_1.txt",
            "".join(
                f"{item + 1}:\n" + "".join(f"{user},5,2005-09-06\n" for user in range(USERS))
                for item in range(ITEMS)
            ),
        ),
        ("citeulike-a", "users.dat", "8 0 1 2 3 4 5 6 7\n" * USERS),
    ],
)
def test_data_that_are_no_table_are_read_after_the_command_that_makes_one(
    name, source, content, tmp_path
):
    file, flags = ROWS[name]
    (tmp_path / source).write_text(content)
    command = next(line for line in TEXT.splitlines() if line.startswith("awk") and file in line)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    dataset, said = prepared(tmp_path, file, flags)
    assert f"{USERS * ITEMS} rows read, {USERS * ITEMS} kept" in said
    assert len(dataset.item_ids) == ITEMS


def test_every_row_of_the_table_is_tested():
    assert set(ROWS) == {*SHAPES, "Netflix prize", "citeulike-a"}
