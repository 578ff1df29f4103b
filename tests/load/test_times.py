"""Times of interactions: numbers and dates, and splits by time against a slow reference."""

import json
import math
from collections import defaultdict
from datetime import datetime, timezone

import pytest
from helpers import run_prepare
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from load.test_split import histories, interactions

from vae.errors import UserError
from vae.load.config import LAST, SplitOptions, parse_time
from vae.load.split import split_interactions
from vae.load.store import open_dataset, prepared_folder, read_manifest
from vae.utils.sealed_json import seal

DAY = 86_400.0


def seconds(*fields):
    return datetime(*fields, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0", 0),
        (" -1.5e3 ", -1500),
        ("1260759144", 1260759144),
        ("1970-01-02", DAY),
        ("1969-12-31", -DAY),
        ("2009-05-04T23:08:57Z", seconds(2009, 5, 4, 23, 8, 57)),
        ("2018-07-07 22:09:11", seconds(2018, 7, 7, 22, 9, 11)),
        ("2009-12-01 07:45", seconds(2009, 12, 1, 7, 45)),
        ("2020-02-29T00:00:00.25+01:30", seconds(2020, 2, 28, 22, 30) + 0.25),
        ("2020-02-28 00:00:00 -0800", seconds(2020, 2, 28, 8)),
        ("2010-03-27 22:40:56+02", seconds(2010, 3, 27, 20, 40, 56)),
        ("2009-05-04 23:08:57 UTC", seconds(2009, 5, 4, 23, 8, 57)),
    ],
)
def test_a_time_is_a_number_or_a_date(text, time):
    assert parse_time(text) == time


@pytest.mark.parametrize(
    "text",
    ["", "never", "2020-02-30", "2020-13-01", "1_0", "05/04/2009", "2020-01-01 25:00"],
)
def test_other_texts_are_no_times(text):
    assert math.isnan(parse_time(text))


ROWS = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 15), st.integers(-3, 9)),
    min_size=40,
    max_size=150,
)


def earliest(rows):
    """The time of each (user, item)."""
    times = defaultdict(lambda: math.inf)
    for user, item, time in rows:
        times[user, item] = min(times[user, item], time)
    return times


def split_or_reject(rows, options):
    try:
        return split_interactions(interactions(rows), options)
    except UserError:
        assume(False)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 100), st.sampled_from([0.2, 0.5]))
def test_no_fold_in_item_is_later_than_a_target(rows, seed, proportion):
    options = SplitOptions(2, 0, 2, proportion, seed, LAST)
    split = split_or_reject(rows, options)
    times = earliest(rows)
    for part in (split.validation, split.test):
        fold_in = histories(part.fold_in, part.user_ids, split.item_ids)
        targets = histories(part.targets, part.user_ids, split.item_ids)
        for user, items in targets.items():
            n = len(items) + len(fold_in[user])
            assert len(items) == (math.floor(proportion * n) if n >= 5 else 0)
            latest = max((times[user, item] for item in fold_in[user]), default=-math.inf)
            assert all(times[user, item] >= latest for item in items)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 100), st.integers(-2, 8), st.sampled_from(["random", LAST]))
def test_training_sees_nothing_after_the_split_time_and_all_targets_are_later(
    rows, seed, end, targets
):
    options = SplitOptions(2, 0, 2, 0.5, seed, targets, end)
    split = split_or_reject(rows, options)
    whole = split_or_reject(rows, SplitOptions(2, 0, 2, 0.5, seed, targets))
    times = earliest(rows)
    train = histories(split.train, split.train_user_ids, split.item_ids)
    before = histories(whole.train, whole.train_user_ids, whole.item_ids)
    kept = {u: {i for i in items if times[u, i] <= end} for u, items in before.items()}
    assert train == {user: items for user, items in kept.items() if items}
    assert split.item_ids.tolist() == sorted(set().union(*train.values()))
    counts = split.counts
    assert counts["train_users_after_split_time"] == len(before) - len(train)
    assert counts["train_interactions_after_split_time"] == sum(
        len(before[user] - kept[user]) for user in before
    )
    for part, other in ((split.validation, whole.validation), (split.test, whole.test)):
        assert part.user_ids.tolist() == other.user_ids.tolist()
        for user, items in histories(part.targets, part.user_ids, split.item_ids).items():
            assert all(times[user, item] > end for item in items)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.data())
def test_neither_the_order_of_rows_nor_later_repetitions_matter(rows, data):
    options = SplitOptions(2, 0, 2, 0.5, 1, LAST, 5)
    split = split_or_reject(rows, options)
    later = [(u, i, t + 100) for u, i, t in data.draw(st.lists(st.sampled_from(rows), max_size=9))]
    other = split_or_reject(data.draw(st.permutations(rows + later)), options)
    for one, two in (
        (split.train, other.train),
        (split.test.targets, other.test.targets),
        (split.validation.fold_in, other.validation.fold_in),
    ):
        assert (one != two).nnz == 0


def test_ties_are_broken_by_the_seed():
    rows = [(user, item, 0) for user in range(30) for item in range(10)]
    splits = [
        split_interactions(interactions(rows), SplitOptions(5, 0, 10, 0.2, seed, LAST))
        for seed in (0, 0, 1)
    ]
    targets = [split.test.targets.toarray().tolist() for split in splits]
    assert targets[0] == targets[1]
    assert targets[0] != targets[2]
    assert len({tuple(row) for row in targets[0]}) > 3


def test_a_split_time_before_everything_is_refused_with_the_times_there_are():
    rows = [(user, item, 5 + item) for user in range(9) for item in range(6)]
    with pytest.raises(
        UserError, match=r"^--split_time 4: no .* the times go from 5 to 10; pass a "
    ):
        split_interactions(interactions(rows), SplitOptions(heldout_users=1, split_time=4.0))


@pytest.fixture
def flags(tmp_path):
    """Flags for a file whose users have one item each day, for ten days, and all items."""
    rows = [
        f"{user},{item},5,2020-01-{1 + (item + user) % 10:02}"
        for user in range(20)
        for item in range(10)
    ]
    (tmp_path / "r.csv").write_text("\n".join(["userId,movieId,rating,day", *rows]))
    return (
        "--data_dir", tmp_path, "--dataset", "timed", "--ratings", tmp_path / "r.csv",
        "--heldout_users", 3,
    )  # fmt: skip


def test_the_command_line_splits_by_time_and_the_manifest_says_so(tmp_path, flags):
    timed = ("--time_col", "day", "--targets", "last", "--split_time", "2020-01-08")
    code, out, err = run_prepare(*flags, *timed)
    assert code == 0, err
    assert "28 interactions of training users after 2020-01-08 dropped, and 0 users" in out
    assert "Targets: each held-out user's last items by day." in out
    test = open_dataset(tmp_path, "timed").test
    for user, targets in zip(test.user_ids, test.targets, strict=True):
        assert sorted((targets.indices + user) % 10) == [8, 9]
    told = read_manifest(prepared_folder(tmp_path, "timed")).provenance.flags
    assert (told["time_col"], told["targets"], told["split_time"]) == ("day", "last", "2020-01-08")
    code, out, _ = run_prepare(*flags, *timed)
    assert "already prepared" in out
    code, out, _ = run_prepare(*flags)
    assert "Preparing again: --time_col changed from 'day' to None; --targets changed from" in out


def test_data_prepared_before_these_flags_existed_are_still_prepared(tmp_path, flags):
    run_prepare(*flags)
    path = prepared_folder(tmp_path, "timed") / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("time_col", "targets", "split_time"):
        del manifest["provenance"]["flags"][name]
    path.write_text(seal(manifest))
    code, out, err = run_prepare(*flags)
    assert code == 0, err
    assert "already prepared" in out
