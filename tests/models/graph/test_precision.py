"""Mixed precision: bfloat16 against float64, and float16's loss scaling as a state machine."""

import os
from functools import partial

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.graph.test_loss import problem, reference, run
from models.reference import (
    HIDDEN,
    ITEMS,
    LATENT,
    RECVAE,
    USERS,
    ChangedGradients,
    KeptGradients,
    ReferenceStep,
    flags,
    noise_of,
    small_step,
    training_matrix,
)
from tensorflow.python.grappler.tf_optimizer import OptimizeGraph

from vae.config import Architecture, Execution
from vae.load.batches import TrainingBatches
from vae.models.graph.precision import BFLOAT16, FLOAT16_REWRITE, FLOAT32, choose_precision
from vae.models.inference.trained_model import TrainedModel, open_inference_session
from vae.utils.distributed import Workers


@pytest.mark.parametrize("chunk_users", [100, 4])
def test_bfloat16_stays_near_float64(chunk_users, monkeypatch):
    monkeypatch.setattr("vae.models.graph.loss.users_per_chunk", lambda _: chunk_users)
    inputs = problem(1, users=9)
    results = run(*inputs, dtype=tf.bfloat16)
    for result, expected in zip(results, reference(*inputs), strict=True):
        assert result.dtype == np.float32
        # bfloat16 has eight bits; errors are relative to the largest element, not to each.
        np.testing.assert_allclose(result, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("layers", [(), RECVAE], ids=["multvae", "recvae"])
def test_all_dense_products_are_bfloat16_and_gradients_stay_near_float64(layers):
    config, workers = flags(dropout=0.4, kl_per_item=0.05), KeptGradients()
    batch = next(TrainingBatches(training_matrix(), USERS, 0, 0.4).epoch(0))
    with small_step(config, *layers, workers=workers, max_users=USERS, precision=BFLOAT16) as (
        session,
        vae,
        step,
    ):
        reference = ReferenceStep(
            session.run({weight.op.name: weight for weight in vae.variables}),
            config,
            vae.architecture.prior,
        )
        found = session.run(workers.by_name, step.feed(batch))
        noise = noise_of(session, config, batch)
        operations = tf.get_default_graph().get_operations()
    assert {o.get_attr("T") for o in operations if o.type == "MatMul"} == {tf.bfloat16}
    for kind in ("Exp", "Mean", "Rsqrt", "Softplus", "ResourceApplyAdam"):
        assert {o.get_attr("T") for o in operations if o.type == kind} <= {tf.float32}, kind
    reference.renew_prior()
    for name, expected in reference.gradients(batch, noise).items():
        assert found[name].dtype == np.float32
        limit = 0.03 * np.abs(expected).max()
        np.testing.assert_allclose(found[name], expected, atol=limit, err_msg=name)


def test_the_loss_scale_cancels_exactly():
    inputs, scale = problem(2, users=5), 2.0**15
    plain, scaled = run(*inputs), run(*inputs, loss_scale=scale)
    for gradient, expected in zip(scaled[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(gradient / scale, expected)


@pytest.fixture
def scaled_step(monkeypatch):
    """A function that runs one step under loss scaling, and one that reads the whole state."""
    overflow = []

    def poison(pairs):
        overflow.append(tf.placeholder_with_default(False, []))
        factor = tf.where(overflow[0], np.inf, 1.0)
        return [(gradient * factor, weight) for gradient, weight in pairs]

    scaling = partial(tf.mixed_precision.DynamicLossScale, increment_period=3)
    monkeypatch.setattr(tf.mixed_precision, "DynamicLossScale", scaling)
    workers = ChangedGradients(poison)
    with small_step(flags(), workers=workers, max_users=USERS, precision=FLOAT16_REWRITE) as (
        session,
        _,
        step,
    ):
        batch = next(TrainingBatches(training_matrix(), USERS, 0, 0.5).epoch(0))

        def run_step(overflows=False):
            session.run(step.update, step.feed(batch) | {overflow[0]: overflows})
            return session.run(step.scalars["loss_scale"])

        def state():
            return {
                v.op.name: session.run(v)
                for v in tf.global_variables()
                if "loss_scale" not in v.op.name and "good_steps" not in v.op.name
            }

        yield run_step, state
    tf.mixed_precision.disable_mixed_precision_graph_rewrite()


def test_an_overflow_skips_the_step_and_halves_the_scale(scaled_step):
    run, state = scaled_step
    scale = run()
    before = state()
    assert any("Adam" in name for name in before)
    assert run(overflows=True) == scale / 2
    for name, value in state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_good_steps_in_a_row_double_the_scale(scaled_step):
    run, _ = scaled_step
    scale = run()
    assert [run(), run()] == [scale, 2 * scale]
    assert run(overflows=True) == scale
    assert [run(), run(), run()] == [scale, scale, 2 * scale]


def test_a_good_step_changes_the_weights_and_counts(scaled_step):
    run, state = scaled_step
    before = state()
    run()
    after = state()
    assert after["global_step"] == before["global_step"] + 1
    assert (after["decoder/items/kernel"] != before["decoder/items/kernel"]).any()


def rewritten_types(settings, fetched, monkeypatch):
    """The types of each kind of operation of the current graph, once Grappler has rewritten it."""
    # Without a GPU the pass does nothing unless it is told to pretend; the graph is not run here.
    monkeypatch.setenv("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_SIMULATE_GPU", "true")
    settings.graph_options.rewrite_options.min_graph_nodes = -1
    graph = tf.get_default_graph()
    graph.get_collection_ref("train_op")[:] = [fetched]  # what Grappler keeps
    types = {}
    for node in OptimizeGraph(settings, tf.train.export_meta_graph()).node:
        types.setdefault(node.op, set()).add(tf.as_dtype(node.attr["T"].type or tf.float32))
    return types


@pytest.mark.parametrize("layers", [(), RECVAE])
def test_the_rewrite_moves_the_matmuls_to_float16_and_leaves_softmax_and_adam(layers, monkeypatch):
    with small_step(flags(), *layers, precision=FLOAT16_REWRITE) as (_, _, step):
        settings = tf.ConfigProto()
        FLOAT16_REWRITE.configure(settings)
        types = rewritten_types(settings, step.update, monkeypatch)
    tf.mixed_precision.disable_mixed_precision_graph_rewrite()
    assert tf.half in types["MatMul"]
    assert types["Softmax"] == types["ResourceApplyAdam"] == {tf.float32}
    # Densities and variances need the range of float32.
    for kind in {"Exp", "Log", "Sum", "Mean", "Rsqrt", "Softplus"} & set(types):
        assert types[kind] == {tf.float32}, kind


def test_inference_in_float32_stays_so_where_a_training_has_asked_for_the_rewrite(monkeypatch):
    # A machine that claims to have a GPU.
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    model = TrainedModel(Architecture(ITEMS, HIDDEN, LATENT))
    execution, workers = Execution(), Workers()
    tf.mixed_precision.enable_mixed_precision_graph_rewrite(tf.train.AdamOptimizer())
    found = []
    try:
        for amp in (False, True):
            precision = choose_precision(amp)
            with open_inference_session(model, execution, workers, 5, USERS, precision) as (
                session,
                ranking,
            ):
                found.append(rewritten_types(session._config, ranking.items, monkeypatch))
    finally:
        tf.mixed_precision.disable_mixed_precision_graph_rewrite()
    assert found[0]["MatMul"] == {tf.float32}
    assert tf.half in found[1]["MatMul"]


def test_the_rewrite_is_kept_from_softmax_in_every_version_of_tensorflow(monkeypatch):
    name = "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE"
    monkeypatch.delenv(name, raising=False)
    FLOAT32.configure(tf.ConfigProto())
    assert name not in os.environ
    FLOAT16_REWRITE.configure(tf.ConfigProto())
    assert os.environ[name] == "Softmax"


def test_a_checkpoint_holds_the_loss_scale_and_the_good_steps_since_it_changed(
    scaled_step, tmp_path
):
    run, _ = scaled_step
    saver, session = tf.train.Saver(), tf.get_default_session()
    run(overflows=True)
    run()
    run()
    path = saver.save(session, str(tmp_path / "variables"))
    expected = [run(), run(), run(overflows=True)]
    assert expected[0] == 2 * expected[2], "the third good step doubles it"
    saver.restore(session, path)
    assert [run(), run(), run(overflows=True)] == expected


def test_a_processor_without_bfloat16_is_told_and_stays_in_float32(monkeypatch):
    monkeypatch.setattr("vae.models.graph.precision.cpu_info", lambda *names: "sse4_2 avx2")
    precision = choose_precision(amp=True)
    assert precision.dtype == tf.float32
    assert "no bfloat16 instructions" in precision.description


def test_without_amp_everything_is_float32():
    assert choose_precision(amp=False).dtype == tf.float32
