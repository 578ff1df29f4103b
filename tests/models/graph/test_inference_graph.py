"""Rankings against brute force: nothing seen, nothing padded, short lists where little is left."""

from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from models.reference import brute_force
from scipy.sparse import csr_matrix

from vae.config import Architecture
from vae.models.graph import inference_graph
from vae.models.graph.inference_graph import Blend, build_inference_graph, top_k
from vae.models.graph.sparse_input import feed
from vae.models.graph.vae import VAE

ITEMS, HIDDEN, LATENT = 61, 6, 3


def histories_and_lists():
    rng = np.random.default_rng(0)
    histories = rng.random((7, ITEMS)) < 0.2
    histories[1] = False  # nothing known
    histories[2, 3:] = True  # three items left
    histories[3] = True  # nothing left
    denied = histories | (rng.random((7, ITEMS)) < 0.1)
    allowed = rng.random((7, ITEMS)) < 0.3
    allowed[[0, 4]] = False  # nothing is allowed
    excluded = rng.random(ITEMS) < 0.3
    allowed[5, ~excluded] = histories[5, ~excluded]  # nothing else is left
    return histories, denied, allowed & ~histories, excluded


def brute_force_scores(weights, history, linear=None):
    """(I,) logits of all items, or the standardised sum of them and of linear scores."""
    scores = np.empty(ITEMS)
    order, logits = brute_force(weights, history, np.zeros(ITEMS), ITEMS)
    scores[order] = logits
    if linear is None:
        return scores
    return sum(
        weight * (values - values.mean()) / max(values.std(), 1e-12)
        for weight, values in ((0.3, scores), (0.7, history @ linear.astype(np.float64)))
    )


@pytest.mark.parametrize(
    ("encoder", "decoder", "blended", "excludes", "listed"),
    [
        ("tanh", "deep", False, False, "histories"),
        ("dense", "linear", False, False, "histories"),
        ("dense", "deep", False, False, "histories"),
        ("tanh", "linear", False, False, "histories"),
        ("tanh", "deep", False, True, "histories"),
        ("tanh", "deep", False, True, "only"),
        ("tanh", "deep", "all", True, "histories"),
        ("tanh", "deep", "all", True, "masked"),
        ("tanh", "deep", "all", True, "only"),
        ("tanh", "deep", "largest", False, "histories"),
        ("tanh", "deep", "largest", True, "only"),
    ],
)
# In one chunk, in three of them one after another, and in three of which two at once.
@pytest.mark.parametrize(("chunk_users", "at_once"), [(7, 1), (3, 1), (6, 2)])
def test_rankings_equal_brute_force_and_hold_nothing_seen_filtered_or_padded(
    encoder, decoder, blended, excludes, listed, chunk_users, at_once, monkeypatch
):
    """Blended with all weights of a linear model, or with a few of each row."""
    histories, denied, allowed, excluded = histories_and_lists()
    linear = np.random.default_rng(1).normal(size=(ITEMS, ITEMS)).astype(np.float32)
    kept, k = ITEMS if blended == "all" else 3, 10
    indices = np.argsort(linear, axis=1)[:, :kept].astype(np.int32)
    if blended == "largest":
        monkeypatch.setattr(inference_graph, "_CHUNK_WEIGHTS", chunk_users * kept)
        np.put_along_axis(linear, np.argsort(linear, axis=1)[:, kept:], 0, axis=1)
    monkeypatch.setattr(inference_graph, "users_per_chunk", lambda _: chunk_users)
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT, "tanh", encoder, decoder), 0)
        blend = Blend(ITEMS, kept, 7) if blended else None
        filters = excludes or listed != "histories"
        graph = build_inference_graph(
            vae, None if filters else k, 7, blend, filters, listed == "only",
            parallel_chunks=at_once,
        )  # fmt: skip
        session.run(tf.global_variables_initializer())
        if blend:
            few = blended == "largest"
            values = np.take_along_axis(linear, indices, axis=1) if few else linear
            blend.item_weights.load(values, session)
            if few:
                blend.item_indices.load(indices, session)
            blend.model_weight.load(np.float32(0.3), session)
        weights = session.run({v.op.name: v for v in vae.variables})
        fed = feed(graph.histories, csr_matrix(histories))
        if filters:
            rows = {"histories": histories, "masked": denied, "only": allowed}[listed]
            mask = np.zeros(graph.item_mask.shape, np.float32)
            mask[:ITEMS][excluded & excludes] = -np.inf
            fed |= feed(graph.listed, csr_matrix(rows)) | {graph.k: k, graph.item_mask: mask}
        items, scores = session.run([graph.items, graph.scores], fed)
    assert items.shape == scores.shape == (7, k)
    left = {"histories": ~histories, "masked": ~denied, "only": allowed}[listed]
    for user, history in enumerate(histories.astype(int)):
        expected = brute_force_scores(weights, history, linear if blended else None)
        ranked = np.flatnonzero(left[user] & ~excluded if excludes else left[user])
        best = ranked[np.argsort(-expected[ranked], kind="stable")][:k]
        assert items[user].tolist() == [*best, *[-1] * (k - len(best))]
        np.testing.assert_allclose(scores[user][: len(best)], expected[best], atol=1e-4)
        assert np.isneginf(scores[user][len(best) :]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.data())
def test_grouped_top_k_finds_the_same_scores_as_a_sort(users, groups, data):
    items = 8 * groups
    k = data.draw(st.integers(1, items))
    seed = data.draw(st.integers(0, 1000))
    scores = np.random.default_rng(seed).integers(-5, 50, (users, items)).astype(np.float32)
    scores[scores < 0] = -np.inf
    with tf.Graph().as_default(), tf.Session() as session:
        fed_k = tf.placeholder(tf.int32, [])
        # As on few items, where nothing is to be saved for a usual K, and as on many.
        with mock.patch.object(inference_graph, "_USUAL_K", data.draw(st.sampled_from([0, 100]))):
            fixed, fed = (top_k(tf.constant(scores), one) for one in (k, fed_k))
        found = session.run([fixed, fed], {fed_k: k})
    for values, indices in found:
        np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :k])
        np.testing.assert_array_equal(np.take_along_axis(scores, indices, 1), values)
        assert all(len(set(row)) == k for row in indices.tolist())


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


def test_excluded_items_cost_one_addition_to_the_bias():
    additions = []
    for filters in (False, True):
        with tf.Graph().as_default() as graph:
            vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), 0)
            build_inference_graph(vae, 5, 4, filters=filters)
            sums = [o.outputs[0] for o in graph.get_operations() if o.type == "AddV2"]
            additions.append(sum(tensor.dtype == tf.float32 for tensor in sums))
    assert additions[1] == additions[0] + 1
