"""Rankings by scores against sorting, and popularity on matrices small enough to check by hand."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import best_unseen
from vae.baselines.fit import fit_baselines
from vae.baselines.popularity import popularity_scores

ITEMS = 11


@given(
    hnp.arrays(np.int8, (4, ITEMS), elements=st.integers(-3, 3)),
    hnp.arrays(bool, (4, ITEMS)),
    hnp.arrays(bool, (4, ITEMS)) | st.none(),
    st.integers(1, ITEMS + 2),
    st.sampled_from(["dense", "sparse", "the same for all"]),
    st.sampled_from([None, 1, 3]),
)
def test_rankings_equal_sorting_each_users_unseen_items(scores, seen, allowed, k, kind, block):
    rows = iter(range(4))

    def of_users(part):
        mine = scores[[next(rows) for _ in range(part.shape[0])]].astype(np.float32)
        return {"dense": mine, "sparse": csr_matrix(mine)}.get(kind, scores[0].astype(np.float32))

    only = None if allowed is None else csr_matrix(allowed)
    done = []
    ranking = best_unseen(of_users, csr_matrix(seen), k, only, done.append, block)
    assert sum(done) == 4
    for user in range(4):
        values = scores[0 if kind == "the same for all" else user]
        left = ~seen[user] if allowed is None else ~seen[user] & allowed[user]
        best = sorted(np.flatnonzero(left), key=lambda item: (-values[item], item))[:k]
        assert ranking[user].tolist() == best + [-1] * (min(k, ITEMS) - len(best))


def test_items_without_a_finite_score_and_users_without_any_are_not_ranked():
    scores = np.float32([-np.inf, 1, -np.inf])
    assert best_unseen(lambda _: scores, csr_matrix((1, 3)), 2).tolist() == [[1, -1]]
    assert best_unseen(lambda _: scores, csr_matrix((0, 3)), 2).shape == (0, 2)


def test_the_most_popular_unseen_items_come_first():
    train = csr_matrix([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]])
    fold_in = csr_matrix([[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]])
    dataset = SimpleNamespace(train=train)
    scores, _ = fit_baselines(["popularity"], dataset, None, None)["popularity"]
    assert best_unseen(scores, fold_in, 2).tolist() == [[2, 1], [1, 0], [3, -1]]


def test_popularity_scores_are_the_logarithms_of_the_fraction_of_users_who_have_the_item():
    scores = popularity_scores(csr_matrix([[1, 1], [0, 1]]))
    np.testing.assert_allclose(scores, [np.log(0.5), 0])
