"""One training step after another, against the float64 reference."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.reference import ReferenceStep
from scipy.sparse import csr_matrix

from vae.config import Config
from vae.load.batches import TrainingBatches
from vae.models.session import compiled
from vae.models.train_step import TrainingStep
from vae.models.vae import VAE, Architecture
from vae.utils.distributed import SingleWorker

ITEMS, HIDDEN, LATENT, USERS, BATCH = 21, 8, 3, 14, 6


def training_matrix():
    rng = np.random.default_rng(5)
    dense = (rng.random((USERS, ITEMS)) < 0.3).astype(np.uint8)
    dense[np.arange(USERS), rng.integers(0, ITEMS, USERS)] = 1
    return csr_matrix(dense)


def lists(batch, values):
    return np.split(values, np.cumsum(batch.counts)[:-1])


@pytest.mark.parametrize(("lam", "anneal_steps"), [(0.0, 4), (0.02, 1000)])
def test_loss_weights_and_adam_follow_the_float64_reference(lam, anneal_steps):
    config = Config(
        train=True,
        lam=lam,
        total_anneal_steps=anneal_steps,
        anneal_cap=0.6,
        lr=0.01,
        hidden_dim=HIDDEN,
        latent_dim=LATENT,
        dropout=0.4,
        seed=3,
    )
    batches = TrainingBatches(training_matrix(), BATCH, config.seed, config.dropout)
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), config.seed)
        step = TrainingStep(vae, config, SingleWorker(""), BATCH)
        session.run(tf.global_variables_initializer())
        names = {variable.op.name: variable for variable in vae.variables}
        reference = ReferenceStep(
            session.run(names), ITEMS, config.lr, 0.9, 0.9, lam, anneal_steps, 0.6
        )
        for epoch in range(3):
            for batch in batches.epoch(epoch):
                noise = session.run(
                    tf.random.stateless_normal(
                        [batch.global_users, LATENT], seed=[config.seed, batch.step]
                    )
                )
                expected, gradients = reference.loss_and_gradients(
                    lists(batch, batch.items),
                    [
                        items[kept]
                        for items, kept in zip(
                            lists(batch, batch.items), lists(batch, batch.keep_mask), strict=True
                        )
                    ],
                    1 - config.dropout,
                    noise,
                )
                reference.apply(gradients)
                totals, _ = session.run([step.totals, step.update], step.feed(batch))
                np.testing.assert_allclose(totals / batch.global_users, expected, rtol=1e-5)
        assert session.run(step.global_step) == 3 * batches.steps_per_epoch
        for name, value in session.run(names).items():
            np.testing.assert_allclose(value, reference.weights[name], rtol=1e-3, atol=2e-5)


def weights_after_an_epoch(batch_size, xla=False):
    config = Config(train=True, hidden_dim=HIDDEN, latent_dim=LATENT, xla=xla)
    batches = TrainingBatches(training_matrix(), batch_size, config.seed, config.dropout)
    with tf.Graph().as_default(), tf.Session() as session:
        with compiled(xla):
            vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), config.seed)
            step = TrainingStep(vae, config, SingleWorker(""), batch_size)
        session.run(tf.global_variables_initializer())
        for batch in batches.epoch(0):
            session.run(step.update, step.feed(batch))
        return session.run(vae.variables)


def test_the_loss_in_chunks_trains_the_same_weights(monkeypatch):
    whole = weights_after_an_epoch(USERS)
    monkeypatch.setattr("vae.models.loss.multinomial_nll.__defaults__", (4,))
    for in_chunks, expected in zip(weights_after_an_epoch(USERS), whole, strict=True):
        np.testing.assert_allclose(in_chunks, expected, rtol=1e-4, atol=1e-5)


def test_xla_trains_the_same_weights():
    with_xla, without = (weights_after_an_epoch(BATCH, xla) for xla in (True, False))
    for found, expected in zip(with_xla, without, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


def test_xla_compiles_the_matmuls_and_nothing_that_follows_the_items():
    config = Config(train=True, hidden_dim=HIDDEN, latent_dim=LATENT, xla=True)
    with tf.Graph().as_default() as graph, compiled(True):
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), config.seed)
        TrainingStep(vae, config, SingleWorker(""), BATCH)
        compiles = {}
        for operation in graph.get_operations():
            if "_XlaCompile" in operation.node_def.attr:
                compiles.setdefault(operation.type, []).append(operation.get_attr("_XlaCompile"))
    assert all(compiles["MatMul"])
    assert all(compiles["Softmax"])
    for kind in ("SparseTensorDenseAdd", "GatherNd", "StatelessRandomNormalV2", "RandomUniform"):
        assert not any(compiles[kind])
