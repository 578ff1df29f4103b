"""What a user should get, by brute force over all items on the same weights, in float64."""

import numpy as np
import pandas as pd
from models.reference import brute_force

from vae.baselines.popularity import popularity_scores

USERS, K = 12, 20


def mask(dataset, table, user):
    """(I,) bool, the items that a table lists for a user, or for all users."""
    if "userId" in table:
        table = table[table.userId == user]
    return np.isin(dataset.item_ids, table.movieId)


def best(dataset, weights, liked, masked, k=K):
    """Raw ids and scores of the best items without the masked ones, both masks (I,) bool."""
    if liked.any():
        items, scores = brute_force(weights, liked.astype(int), masked.astype(int), k)
    else:
        popularity = popularity_scores(dataset.train)
        items = np.flatnonzero(~masked)
        items = items[np.argsort(-popularity[items], kind="stable")][:k]
        scores = popularity[items]
    return dataset.item_ids[items], scores


def best_filtered(dataset, weights, histories, user, allow, deny):
    """The same for a user of a table, by tables of allowed and denied items, which may be None."""
    liked = masked = mask(dataset, histories, user)
    if allow is not None:
        masked = masked | ~mask(dataset, allow, user)
    if deny is not None:
        masked = masked | mask(dataset, deny, user)
    return best(dataset, weights, liked, masked)


def assert_ranking(items, scores, expected_items, expected_scores, atol=1e-4):
    """A user's items and scores are the first of these.

    Two programs, or two batches of one, sum in another order: items whose scores differ by no more
    than rounding may change places, also across the end of the list if more items are expected.
    """
    np.testing.assert_allclose(scores, expected_scores[: len(items)], atol=atol)
    assert len(set(items)) == len(items)
    score_of = dict(zip(expected_items, expected_scores, strict=True))
    assert set(items) <= set(score_of)
    np.testing.assert_allclose([score_of[item] for item in items], scores, atol=atol)


def assert_rows(rows, items, scores):
    """The rows of a user are these, but for rounding."""
    assert rows["rank"].tolist() == list(range(1, len(items) + 1))
    assert_ranking(rows.movieId.tolist(), rows.score, items.tolist(), scores)


def random_filter(dataset, rng, fraction, by_user):
    """A random table of items, or of users but one and items, with an unknown id."""
    users = [user for user in range(USERS) if user != 5] if by_user else [0]
    rows = [(user, item) for user in users for item in dataset.item_ids if rng.random() < fraction]
    table = pd.DataFrame([*rows, (1, 10**8)], columns=["userId", "movieId"])
    return table if by_user else table[["movieId"]]


def assert_filtered(rows, dataset, weights, histories, allow, deny):
    """The rows are those of brute force; returns the number of users without any."""
    empty = 0
    for user in range(USERS):
        items, scores = best_filtered(dataset, weights, histories, user, allow, deny)
        assert_rows(rows[rows.userId == user], items, scores)
        empty += not len(items)
    return empty
