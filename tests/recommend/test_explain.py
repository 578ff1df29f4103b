"""--explain against recomputation without the item, in float64."""

import re

import numpy as np
import pandas as pd
import pytest
import tensorflow.compat.v1 as tf
from helpers import output_of
from hypothesis import given, settings
from hypothesis import strategies as st
from models.reference import brute_force, log_softmax
from scipy.sparse import csr_matrix

from vae.config import Architecture
from vae.models.graph.inference_graph import build_inference_graph
from vae.models.graph.precision import BFLOAT16, FLOAT32
from vae.models.graph.sparse_input import feed
from vae.models.graph.vae import VAE
from vae.recommend.explain import explain, leave_one_out


def log_probabilities(weights, history):
    """(I,) of all items, seen or not."""
    items, scores = brute_force(weights, history, np.zeros(len(history)), len(history))
    logits = np.empty(len(history))
    logits[items] = scores
    return log_softmax(logits)


def effects_of(weights, history, item):
    """The leave-one-out effect of each item of a history on another item."""
    whole = log_probabilities(weights, history)[item]
    effects = {}
    for left_out in np.flatnonzero(history):
        rest = history.copy()
        rest[left_out] = 0
        effects[left_out.item()] = whole - log_probabilities(weights, rest)[item]
    return effects


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_each_item_is_left_out_once(seed, fill):
    rng = np.random.default_rng(seed)
    dense = (rng.random((5, 9)) < fill).astype(np.uint8)
    matrix = csr_matrix(dense)
    first, last = sorted(rng.integers(0, matrix.nnz + 1, 2).tolist())
    expected = []
    for user, item in list(zip(*np.nonzero(dense), strict=True))[first:last]:
        row = dense[user].copy()
        row[item] = 0
        expected.append(row.tolist())
    assert leave_one_out(matrix, first, last).toarray().tolist() == expected


@pytest.mark.parametrize(("max_users", "max_items"), [(1000, 10**6), (7, 10**6), (50, 20), (1, 1)])
def test_effects_equal_recomputation_whatever_the_batches(max_users, max_items, monkeypatch):
    monkeypatch.setattr("vae.models.graph.inference_graph.users_per_chunk", lambda _: 6)
    rng = np.random.default_rng(0)
    histories = (rng.random((7, 61)) < 0.15).astype(np.uint8)
    histories[2] = 0  # a cold-start user has no item to name
    histories[3] = np.arange(61) == 8  # one item, without which nothing is left
    items = rng.permuted(np.tile(np.arange(61), (7, 1)), axis=1)[:, :4].astype(np.int32)
    items[5, 2:] = -1
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(61, 6, 3), 0)
        graph = build_inference_graph(vae, 4, 1000, log_probabilities=True, parallel_chunks=2)
        session.run(tf.global_variables_initializer())
        for variable in vae.variables:  # larger ones, that the effects are
            variable.load(3 * session.run(variable), session)
        weights = session.run({v.op.name: v for v in vae.variables})

        def run(rows, given_items):
            assert rows.shape[0] <= max_users
            return session.run(
                graph.log_probabilities,
                feed(graph.histories, rows) | {graph.given_items: given_items},
            )

        found, effects = explain(run, csr_matrix(histories), items, 3, max_users, max_items)
    assert found.shape == effects.shape == (7, 4, 3)
    for user, history in enumerate(histories):
        for rank, item in enumerate(items[user]):
            expected = effects_of(weights, history, item) if item >= 0 else {}
            best = sorted((effect for effect in expected.values() if effect > 0), reverse=True)[:3]
            named = [one for one in found[user, rank].tolist() if one >= 0]
            assert found[user, rank].tolist() == [*named, *[-1] * (3 - len(named))]
            np.testing.assert_allclose([expected[one] for one in named], best, atol=1e-5)
            np.testing.assert_allclose(effects[user, rank, : len(best)], best, atol=1e-5)
            assert (effects[user, rank, len(best) :] == 0).all()


def test_titles_and_effects_are_those_of_recomputation(recommender, dataset, weights):
    history = dataset.test.fold_in[4].toarray()[0]
    table = pd.DataFrame({"userId": "ann", "movieId": dataset.item_ids[history > 0]})
    rows = recommender.recommend(table, 3, explain=2)
    assert list(rows)[-2:] == ["title", "explanation"]
    for item, explanation in zip(rows.movieId, rows.explanation, strict=True):
        effects = effects_of(weights, history, np.searchsorted(dataset.item_ids, item))
        expected = sorted(effects.items(), key=lambda pair: -pair[1])[:2]
        titles = [recommender.titles.iloc[left_out] for left_out, _ in expected]
        found = re.findall(r"(Film \d+ of taste \d+) \(\+(\d\.\d{3})\)", explanation)
        assert [title for title, _ in found] == titles
        np.testing.assert_allclose(
            [float(effect) for _, effect in found], [e for _, e in expected], atol=6e-4
        )


def test_the_command_line_adds_a_column_and_shows_examples(on_model, dataset, movies, tmp_path):
    a, b = dataset.item_ids[[3, 4]]
    (tmp_path / "h.csv").write_text(f"userId,movieId\nann,{a}\nann,{b}\nbob,no\n")
    flags = ("--recommend", tmp_path / "h.csv", "--top_results", 7, "--explain", 1)
    out = output_of(on_model(*flags, "--output", tmp_path / "r.csv"))
    rows = pd.read_csv(tmp_path / "r.csv", keep_default_na=False)
    assert list(rows) == ["userId", "movieId", "rank", "score", "source", "explanation"]
    assert (rows[rows.userId == "bob"].explanation == "").all()
    named = rows[rows.userId == "ann"].explanation.str.extract(r"^(\d+) \(\+\d+\.\d{3}\)$")[0]
    assert set(named.dropna()) <= {str(a), str(b)}
    assert len(named.dropna())
    assert "with the history items that have the largest effect:\n  userId ann:\n" in out
    titled = ("--output", tmp_path / "r.parquet", "--item_names", movies)
    out = output_of(on_model(*flags, *titled))
    assert re.search(r"\n    \d+ Film \d+ of taste \d+  <-  Film \d+ of taste \d+ \(\+", out)
    assert len(re.findall("  <-  ", out)) == 3


def test_explanations_are_computed_in_float32_under_amp_too(
    on_model, histories, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "vae.recommend.recommender.choose_precision", lambda amp: BFLOAT16 if amp else FLOAT32
    )
    histories[histories.userId < 20].to_csv(tmp_path / "h.csv", index=False)
    flags = ("--recommend", tmp_path / "h.csv", "--top_results", 5, "--explain", 3, "--output")
    for name, more in (("float32", ()), ("amp", ("--amp",))):
        out = output_of(on_model(*flags, tmp_path / f"{name}.csv", *more))
        assert "Precision of inference: float32, as --explain needs" in out
    assert (tmp_path / "amp.csv").read_text() == (tmp_path / "float32.csv").read_text()
