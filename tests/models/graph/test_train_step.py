"""One training step after another, against the float64 reference."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.reference import (
    BATCH,
    RECVAE,
    USERS,
    ReferenceStep,
    flags,
    noise_of,
    small_step,
    training_matrix,
)

from vae.load.batches import TrainingBatches


@pytest.mark.parametrize(
    ("layers", "more"),
    [
        (("tanh", "deep", "normal"), {"total_anneal_steps": 4, "anneal_cap": 0.6}),
        (("tanh", "deep", "normal"), {"total_anneal_steps": 1000, "lam": 0.02}),
        (("tanh", "deep", "composite"), {"total_anneal_steps": 10, "anneal_cap": 0.6}),
        (("dense", "deep", "normal"), {"total_anneal_steps": 10, "anneal_cap": 0.6}),
        (("tanh", "linear", "normal"), {"kl_per_item": 0.05}),
        (RECVAE, {"kl_per_item": 0.05, "lam": 0.02}),
    ],
)
def test_loss_weights_and_adam_of_every_model_follow_the_float64_reference(layers, more):
    config = flags(lr=0.01, dropout=0.4, seed=3, **more)
    batches = TrainingBatches(
        training_matrix(), BATCH, config.execution.seed, config.objective.dropout
    )
    with small_step(config, *layers) as (session, vae, step):
        names = {variable.op.name: variable for variable in vae.variables}
        reference = ReferenceStep(session.run(names), config, layers[-1])
        for epoch in range(3):
            reference.renew_prior()
            for batch in batches.epoch(epoch):
                noise = noise_of(session, config, batch)
                expected = reference.sums(reference.weights, batch, noise)
                reference.apply(reference.gradients(batch, noise))
                totals, _ = session.run([step.totals, step.update], step.feed(batch))
                np.testing.assert_allclose(
                    totals, expected, rtol=1e-4 if "dense" in layers else 1e-5
                )
            session.run(step.end_of_epoch)
        assert session.run(step.global_step) == 3 * batches.steps_per_epoch
        for name, value in session.run(names).items():
            expected = reference.weights[name]
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=2e-5, err_msg=name)


def weights_after_an_epoch(batch_size, *layers, xla=False):
    config = flags()
    batches = TrainingBatches(
        training_matrix(), batch_size, config.execution.seed, config.objective.dropout
    )
    with small_step(config, *layers, max_users=batch_size, xla=xla) as (session, vae, step):
        for batch in batches.epoch(0):
            session.run(step.update, step.feed(batch))
        return session.run(vae.variables)


def test_the_loss_in_chunks_trains_the_same_weights(monkeypatch):
    whole = weights_after_an_epoch(USERS)
    monkeypatch.setattr("vae.models.graph.loss.users_per_chunk", lambda _: 4)
    in_chunks = weights_after_an_epoch(USERS)
    for found, expected in zip(in_chunks, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [(), RECVAE], ids=["multvae", "recvae"])
def test_xla_trains_the_same_weights(layers):
    with_xla, without = (weights_after_an_epoch(BATCH, *layers, xla=xla) for xla in (True, False))
    for found, expected in zip(with_xla, without, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


def test_xla_compiles_the_matmuls_and_nothing_that_follows_the_items():
    compiles = {}
    with small_step(flags(), xla=True):
        for operation in tf.get_default_graph().get_operations():
            if "_XlaCompile" in operation.node_def.attr:
                compiles.setdefault(operation.type, []).append(operation.get_attr("_XlaCompile"))
    assert all(compiles["MatMul"])
    assert all(compiles["Softmax"])
    for kind in ("InplaceAdd", "GatherNd", "StatelessRandomNormalV2", "RandomUniform"):
        assert not any(compiles[kind])
