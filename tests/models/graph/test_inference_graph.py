"""Rankings against brute force: nothing seen, nothing padded, short lists where little is left."""

from collections import Counter

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from models.reference import brute_force
from scipy.sparse import csr_matrix

from vae.config import Architecture
from vae.models.graph.inference_graph import Blend, build_inference_graph, top_k
from vae.models.graph.sparse_input import feed
from vae.models.graph.vae import VAE

ITEMS, HIDDEN, LATENT = 61, 6, 3


LAYERS = [("tanh", "deep"), ("dense", "linear"), ("dense", "deep"), ("tanh", "linear")]


# In one slice, in three of them one after another, and in three of which two at once.
@pytest.mark.parametrize(("chunk_users", "at_once"), [(7, 1), (3, 1), (6, 2)])
@pytest.mark.parametrize(("encoder", "decoder"), LAYERS)
def test_rankings_equal_brute_force_and_hold_nothing_seen_or_padded(
    encoder, decoder, chunk_users, at_once
):
    rng = np.random.default_rng(0)
    histories = (rng.random((7, ITEMS)) < 0.2).astype(np.uint8)
    histories[1] = 0  # nothing known
    histories[2, 3:] = 1  # three items left
    histories[3] = 1  # nothing left
    k = 10
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT, "tanh", encoder, decoder), 0)
        ranking = build_inference_graph(vae, k, 7, parallel_chunks=at_once, chunk_users=chunk_users)
        session.run(tf.global_variables_initializer())
        weights = session.run({v.op.name: v for v in vae.variables})
        items, scores = session.run(
            [ranking.items, ranking.scores], feed(ranking.histories, csr_matrix(histories))
        )
    assert items.shape == scores.shape == (7, k)
    for user, history in enumerate(histories):
        best, best_scores = brute_force(weights, history, history, k)
        assert items[user].tolist() == [*best, *[-1] * (k - len(best))]
        np.testing.assert_allclose(scores[user][: len(best)], best_scores, atol=1e-5)
        assert np.isneginf(scores[user][len(best) :]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.data())
def test_grouped_top_k_finds_the_same_scores_as_a_sort(users, groups, data):
    columns = 8 * groups
    k = data.draw(st.integers(1, columns))
    seed = data.draw(st.integers(0, 1000))
    scores = np.random.default_rng(seed).integers(-5, 50, (users, columns)).astype(np.float32)
    scores[scores < 0] = -np.inf
    with tf.Graph().as_default(), tf.Session() as session:
        values, columns_found = session.run(top_k(tf.constant(scores), k))
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(scores, columns_found, 1), values)
    assert all(len(set(row)) == k for row in columns_found.tolist())


def test_half_the_weights_in_bfloat16_rank_nearly_the_same():
    histories = (np.random.default_rng(1).random((4, ITEMS)) < 0.2).astype(np.uint8)
    scores = []
    for dtype in (tf.float32, tf.bfloat16):
        with tf.Graph().as_default(), tf.Session() as session:
            vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), 0, dtype)
            ranking = build_inference_graph(vae, 5, 4)
            session.run(tf.global_variables_initializer())
            for variable in vae.variables:
                values = np.random.default_rng(len(variable.op.name)).normal(size=variable.shape)
                variable.load(values.astype(variable.dtype.as_numpy_dtype), session)
            fed = feed(ranking.histories, csr_matrix(histories))
            scores.append(session.run(ranking.scores, fed))
    np.testing.assert_allclose(scores[0], scores[1], atol=0.05)


@pytest.mark.parametrize(("chunk_users", "at_once"), [(7, 1), (3, 1), (6, 2)])
@pytest.mark.parametrize("by_user", [False, True])
def test_excluded_and_not_allowed_items_are_never_ranked(chunk_users, at_once, by_user):
    rng = np.random.default_rng(0)
    histories = (rng.random((7, ITEMS)) < 0.2).astype(np.uint8)
    excluded = rng.random(ITEMS) < 0.3
    allowed = (rng.random((7, ITEMS)) < 0.3).astype(np.uint8)
    allowed[[0, 4]] = 0  # nothing is allowed
    allowed[5, ~excluded] = histories[5, ~excluded]  # nothing else is left
    k = 10
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), 0)
        graph = build_inference_graph(
            vae, k, 7, None, excluded, by_user, by_user,
            parallel_chunks=at_once, chunk_users=chunk_users,
        )  # fmt: skip
        session.run(tf.global_variables_initializer())
        weights = session.run({v.op.name: v for v in vae.variables})
        fed = feed(graph.histories, csr_matrix(histories))
        if by_user:
            fed |= feed(graph.listed, csr_matrix(allowed & ~histories))
        items, scores = session.run([graph.items, graph.scores], fed)
    for user, history in enumerate(histories):
        masked = np.maximum(history, excluded)
        if by_user:
            masked = np.maximum(masked, 1 - allowed[user])
        best, best_scores = brute_force(weights, history, masked, k)
        assert items[user].tolist() == [*best, *[-1] * (k - len(best))]
        np.testing.assert_allclose(scores[user][: len(best)], best_scores, atol=1e-5)


def test_excluded_items_cost_one_addition_to_the_bias():
    counts = []
    for excluded in (None, np.zeros(ITEMS, bool)):
        with tf.Graph().as_default() as graph:
            vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), 0)
            build_inference_graph(vae, 5, 4, excluded=excluded)
            counts.append(Counter(operation.type for operation in graph.get_operations()))
    assert sum((counts[1] - counts[0]).values()) == 2  # the mask and its addition


@pytest.mark.parametrize(("chunk_users", "at_once"), [(7, 1), (3, 1)])
@pytest.mark.parametrize("separate", [False, True])
def test_a_blend_ranks_by_the_sum_of_standardised_scores(chunk_users, at_once, separate):
    rng = np.random.default_rng(0)
    histories = (rng.random((7, ITEMS)) < 0.2).astype(np.uint8)
    histories[1] = 0  # nothing known
    seen = histories | (rng.random((7, ITEMS)) < 0.1) if separate else histories
    denied = rng.random(ITEMS) < 0.2
    linear = rng.normal(size=(ITEMS, ITEMS)).astype(np.float32)
    weight, k = 0.3, 10
    with tf.Graph().as_default(), tf.Session() as session:
        vae, blend = VAE(Architecture(ITEMS, HIDDEN, LATENT), 0), Blend(ITEMS)
        ranking = build_inference_graph(
            vae, k, 7, blend, denied, separate, parallel_chunks=at_once, chunk_users=chunk_users
        )
        session.run(tf.global_variables_initializer())
        blend.item_weights.load(linear, session)
        blend.model_weight.load(np.float32(weight), session)
        weights = session.run({v.op.name: v for v in vae.variables})
        fed = feed(ranking.histories, csr_matrix(histories))
        items, scores = session.run(
            [ranking.items, ranking.scores], fed | feed(ranking.listed, csr_matrix(seen))
        )
    for user, history in enumerate(histories):
        order, logits = brute_force(weights, history, np.zeros(ITEMS), ITEMS)
        of_model = np.empty(ITEMS)
        of_model[order] = logits
        of_ease = history @ linear.astype(np.float64)
        mixed = sum(
            share * (values - values.mean()) / max(values.std(), 1e-12)
            for share, values in ((weight, of_model), (1 - weight, of_ease))
        )
        ranked = np.flatnonzero((seen[user] == 0) & ~denied)
        best = ranked[np.argsort(-mixed[ranked], kind="stable")][:k]
        assert items[user].tolist() == best.tolist()
        np.testing.assert_allclose(scores[user], mixed[best], atol=1e-4)
