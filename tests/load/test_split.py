"""The split against what it promises on any ratings, and a slow reference of its filters."""

import math
import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vae.errors import UserError
from vae.load.config import SplitOptions
from vae.load.reading.interactions import CodedIds, Interactions
from vae.load.split import split_interactions


def spread(number):
    """An id that is no index."""
    return 10 * number + 7


INTERACTIONS = st.lists(
    st.tuples(st.integers(0, 14).map(spread), st.integers(0, 19).map(spread)),
    min_size=30,
    max_size=150,
    unique=True,
)
OPTIONS = st.builds(
    SplitOptions,
    min_items_per_user=st.integers(1, 4),
    min_users_per_item=st.integers(0, 3),
    heldout_users=st.integers(1, 3) | st.sampled_from([0.1, 0.25, 0.4]),
    test_proportion=st.sampled_from([0.2, 0.5, 0.9]),
    seed=st.integers(0, 2**31 - 1),
)
SEARCH = settings(max_examples=50, deadline=None)


def interactions(rows):
    """Interactions of rows of a user, an item and perhaps a time."""
    users, items, *times = (np.array(column) for column in zip(*rows, strict=True))
    user_ids, user_codes = np.unique(users, return_inverse=True)
    item_ids, item_codes = np.unique(items, return_inverse=True)
    return Interactions(
        CodedIds(user_codes.astype(np.int32), user_ids),
        CodedIds(item_codes.astype(np.int32), item_ids),
        times=times[0].astype(np.float64) if times else None,
        rows_read=len(rows) + 5,
    )


def slow_filter(rows, options):
    """The items of each user who stays, raw ids."""
    users = defaultdict(set)
    for user, item in rows:
        users[item].add(user)
    rows = [(u, i) for u, i in rows if len(users[i]) >= options.min_users_per_item]
    items = defaultdict(set)
    for user, item in rows:
        items[user].add(item)
    return {u: i for u, i in items.items() if len(i) >= options.min_items_per_user}


def held_out(options, users):
    requested = options.heldout_users
    return int(requested * users) if requested < 1 else requested


def split_or_reject(rows, options):
    kept = slow_filter(rows, options)
    count = held_out(options, len(kept))
    assume(count >= 1 and len(kept) > 2 * count)
    return split_interactions(interactions(rows), options), kept


def histories(matrix, user_ids, item_ids):
    """The raw items of each raw user."""
    assert matrix.shape == (len(user_ids), len(item_ids))
    assert matrix.dtype == np.uint8
    assert (matrix.data == 1).all()
    assert len(set(user_ids.tolist())) == len(user_ids)
    rows = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    columns = [matrix.indices[start:end].tolist() for start, end in rows]
    assert all(row == sorted(set(row)) for row in columns)
    return {
        user: {item_ids[column].item() for column in row}
        for user, row in zip(user_ids.tolist(), columns, strict=True)
    }


def parts(split):
    train = histories(split.train, split.train_user_ids, split.item_ids)
    held = [
        (
            histories(part.fold_in, part.user_ids, split.item_ids),
            histories(part.targets, part.user_ids, split.item_ids),
        )
        for part in (split.validation, split.test)
    ]
    return train, *held


def same(one, other):
    """Whether two splits have equal matrices and ids."""
    return parts(one) == parts(other) and all(
        a.tolist() == b.tolist()
        for a, b in (
            (one.item_ids, other.item_ids),
            (one.train_user_ids, other.train_user_ids),
            (one.validation.user_ids, other.validation.user_ids),
            (one.test.user_ids, other.test.user_ids),
        )
    )


@SEARCH
@given(INTERACTIONS, OPTIONS)
def test_a_split_is_what_it_promises(rows, options):
    split, kept = split_or_reject(rows, options)
    train, *held = parts(split)
    # Every user who is kept is in one set, and the sets have the requested sizes.
    sizes = [len(fold_in) for fold_in, _ in held]
    assert sizes == [held_out(options, len(kept))] * 2
    assert len(train) + sum(sizes) == len(kept)
    assert train.keys() | held[0][0].keys() | held[1][0].keys() == kept.keys()
    # Training users keep all their items, and only theirs are known.
    assert train == {user: kept[user] for user in train}
    assert split.item_ids.tolist() == sorted(set().union(*train.values()))
    # A held-out user's known items are fold-in items or targets: a part of them, rounded down.
    known = set(split.item_ids.tolist())
    for fold_in, targets in held:
        for user in fold_in:
            assert not fold_in[user] & targets[user]
            items = fold_in[user] | targets[user]
            assert items == kept[user] & known
            expected = math.floor(options.test_proportion * len(items)) if len(items) >= 5 else 0
            assert len(targets[user]) == expected


@pytest.mark.parametrize(
    ("items", "targets"), [(1, 0), (4, 0), (5, 1), (9, 1), (10, 2), (14, 2), (15, 3)]
)
def test_how_many_of_a_users_items_are_targets(items, targets):
    rows = [(user, item) for user in range(9) for item in range(items)]
    split = split_interactions(
        interactions(rows), SplitOptions(min_items_per_user=1, heldout_users=2)
    )
    for part in (split.validation, split.test):
        assert part.targets.sum(axis=1).ravel().tolist() == [[targets, targets]]
        assert part.fold_in.sum(axis=1).ravel().tolist() == [[items - targets] * 2]


@SEARCH
@given(INTERACTIONS, OPTIONS)
def test_the_counts_add_up(rows, options):
    split, kept = split_or_reject(rows, options)
    counts = split.counts
    train, *held = parts(split)
    held_interactions = sum(len(kept[user]) for fold_in, _ in held for user in fold_in)
    known_interactions = 0
    for name, (fold_in, targets) in zip(("validation", "test"), held, strict=True):
        assert counts[f"{name}_fold_in_interactions"] == sum(map(len, fold_in.values()))
        assert counts[f"{name}_target_interactions"] == sum(map(len, targets.values()))
        nothing = sum(not items for items in targets.values())
        assert counts[f"{name}_users_without_targets"] == nothing
        known_interactions += (
            counts[f"{name}_fold_in_interactions"] + counts[f"{name}_target_interactions"]
        )
        assert counts["heldout_users"] == len(fold_in)
    assert counts["rows"] == len(rows) + 5
    assert counts["interactions"] == counts["distinct_interactions"] == len(rows)
    assert counts["users"] == len(kept)
    assert counts["dropped_users"] == len({user for user, _ in rows}) - len(kept)
    takers = [sum(item == other for _, other in rows) for item in {item for _, item in rows}]
    assert counts["dropped_items"] == sum(n < options.min_users_per_item for n in takers)
    assert counts["items"] == len(split.item_ids)
    assert counts["train_users"] == len(train)
    assert counts["train_interactions"] == sum(map(len, train.values()))
    assert counts["heldout_interactions_dropped"] == held_interactions - known_interactions
    assert all(type(count) is int for count in counts.values())


@SEARCH
@given(INTERACTIONS, OPTIONS, st.data())
def test_neither_the_order_of_rows_nor_duplicates_matter(rows, options, data):
    split, _ = split_or_reject(rows, options)
    again = rows + data.draw(st.lists(st.sampled_from(rows), max_size=20))
    other = split_interactions(interactions(data.draw(st.permutations(again))), options)
    assert same(split, other)
    assert other.counts["interactions"] == len(again)
    assert other.counts["distinct_interactions"] == len(rows)


def test_another_seed_splits_otherwise():
    rows = [(user, item) for user in range(40) for item in range(10)]
    splits = [
        split_interactions(interactions(rows), SplitOptions(5, 0, 10, 0.2, seed))
        for seed in (0, 0, 1)
    ]
    assert same(splits[0], splits[1])
    assert set(splits[0].test.user_ids) != set(splits[2].test.user_ids)


def test_items_are_filtered_before_users_and_only_once():
    # Item 9 has one user; without it user 0 is left with one item, and falls, and item 0 stays
    # although user 0 was the second of its two users.
    rows = [(0, 0), (0, 9), (1, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2)]
    options = SplitOptions(min_items_per_user=2, min_users_per_item=2, heldout_users=1)
    assert slow_filter(rows, options).keys() == {1, 2, 3, 4}
    counts = split_interactions(interactions(rows), options).counts
    assert (counts["users"], counts["dropped_users"], counts["dropped_items"]) == (4, 1, 1)


@SEARCH
@given(INTERACTIONS, st.integers(1, 6), st.floats(1e-9, 0.999) | st.integers(1, 30).map(float))
def test_too_few_users_are_reported_with_a_number_that_works(rows, least, requested):
    users = len(slow_filter(rows, SplitOptions(min_items_per_user=least)))
    count = int(requested * users) if requested < 1 else int(requested)
    assume(users >= 3 and (count < 1 or users <= 2 * count))
    with pytest.raises(UserError, match=f"^{users} users are left") as caught:
        split_interactions(interactions(rows), SplitOptions(least, heldout_users=requested))
    proposal = re.search(r"pass --heldout_users (\d+)\.$", str(caught.value))
    split = split_interactions(
        interactions(rows), SplitOptions(least, heldout_users=int(proposal[1]))
    )
    assert split.counts["heldout_users"] == int(proposal[1])


@pytest.mark.parametrize("users", [0, 1, 2])
def test_when_no_number_works_the_filters_are_to_blame(users):
    rows = [(user, item) for user in range(users) for item in range(6)] + [(99, 0)]
    with pytest.raises(UserError, match=f"^{users} users are left.*lower .*--threshold"):
        split_interactions(interactions(rows), SplitOptions(heldout_users=1))


def test_filtering_every_item_away_is_reported():
    rows = [(user, user) for user in range(9)]
    with pytest.raises(UserError, match=r"^0 users are left.*--min_users_per_item"):
        split_interactions(interactions(rows), SplitOptions(min_users_per_item=2))


def test_targets_are_chosen_at_random_for_each_user():
    rows = [(user, item) for user in range(500) for item in range(10)]
    split = split_interactions(interactions(rows), SplitOptions(heldout_users=200))
    for part in (split.validation, split.test):
        # 200 users rank 2 of 10 items: 40 an item with a standard deviation of 5.7.
        times = part.targets.sum(axis=0).ravel()
        assert times.min() > 10
        assert times.max() < 70
        assert len({tuple(row) for row in part.targets.toarray().tolist()}) > 30
