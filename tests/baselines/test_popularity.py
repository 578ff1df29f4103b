"""The popularity baseline, on matrices small enough to check by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_matrix

from vae.baselines.popularity import popularity_scores, recommend_popular


def test_the_most_popular_unseen_items_come_first():
    train = csr_matrix([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]])
    fold_in = csr_matrix([[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]])
    assert recommend_popular(train, fold_in, 2).tolist() == [[2, 1], [1, 0], [3, -1]]


def test_scores_are_the_logarithms_of_the_fraction_of_users_who_have_the_item():
    scores = popularity_scores(csr_matrix([[1, 1, 0], [0, 1, 0]]))
    np.testing.assert_allclose(scores, [np.log(0.5), 0, -np.inf])


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 6), st.just(7))),
    hnp.arrays(bool, st.tuples(st.integers(0, 6), st.just(7))),
    st.integers(1, 9),
)
def test_it_equals_sorting_each_users_unseen_items(train, fold_in, k):
    popularity = train.sum(axis=0)
    expected = []
    for history in fold_in:
        unseen = [i for i in range(7) if not history[i]]
        best = sorted(unseen, key=lambda i: (-popularity[i], i))[:k]
        expected.append(best + [-1] * (min(k, 7) - len(best)))
    ranking = recommend_popular(csr_matrix(train), csr_matrix(fold_in), k)
    assert ranking.shape == (len(fold_in), min(k, 7))
    np.testing.assert_array_equal(ranking, np.array(expected).reshape(ranking.shape))
