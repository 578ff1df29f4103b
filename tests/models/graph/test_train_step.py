"""One training step after another, against the float64 reference."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.reference import Adam, ReferenceStep, complex_step_gradients, losses
from scipy.sparse import csr_matrix

from vae.config import Architecture, Config
from vae.load.batches import TrainingBatches
from vae.models.graph.session import compiled
from vae.models.graph.train_step import TrainingStep
from vae.models.graph.vae import VAE
from vae.utils.distributed import SingleWorker

ITEMS, HIDDEN, LATENT, USERS, BATCH = 21, 8, 3, 14, 6


def batches_of(config, batch_size):
    seed, dropout = config.execution.seed, config.objective.dropout
    return TrainingBatches(training_matrix(), batch_size, seed, dropout)


def training_matrix():
    rng = np.random.default_rng(5)
    dense = (rng.random((USERS, ITEMS)) < 0.3).astype(np.uint8)
    dense[np.arange(USERS), rng.integers(0, ITEMS, USERS)] = 1
    return csr_matrix(dense)


def lists(batch, values):
    return np.split(values, np.cumsum(batch.counts)[:-1])


@pytest.mark.parametrize(("lam", "anneal_steps"), [(0.0, 4), (0.02, 1000)])
def test_loss_weights_and_adam_follow_the_float64_reference(lam, anneal_steps):
    config = Config.of(
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
    batches = TrainingBatches(
        training_matrix(), BATCH, config.execution.seed, config.objective.dropout
    )
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), config.execution.seed)
        step = TrainingStep(vae, config, SingleWorker(""), BATCH)
        session.run(tf.global_variables_initializer())
        names = {variable.op.name: variable for variable in vae.variables}
        reference = ReferenceStep(
            session.run(names), ITEMS, config.training.lr, 0.9, 0.9, lam, anneal_steps, 0.6
        )
        for epoch in range(3):
            for batch in batches.epoch(epoch):
                noise = session.run(
                    tf.random.stateless_normal(
                        [batch.global_users, LATENT], seed=[config.execution.seed, batch.step]
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
                    1 - config.objective.dropout,
                    noise,
                )
                reference.apply(gradients)
                totals, _ = session.run([step.totals, step.update], step.feed(batch))
                np.testing.assert_allclose(totals / batch.global_users, expected, rtol=1e-5)
        assert session.run(step.global_step) == 3 * batches.steps_per_epoch
        for name, value in session.run(names).items():
            np.testing.assert_allclose(value, reference.weights[name], rtol=1e-3, atol=2e-5)


class AnyModel(Adam):
    """The reference of every model: its losses are written down, its gradients are not."""

    def __init__(self, weights, config, prior):
        super().__init__(weights, config.training.lr, config.training.beta1, config.training.beta2)
        self.config, self.prior, self.old = config, prior, None

    def renew_prior(self):
        if self.prior == "composite":
            self.old = {name: value.copy() for name, value in self.weights.items()}

    def train(self, batch, noise):
        """The sums over the users of the objective and its parts, before the step is applied."""
        histories, masks = lists(batch, batch.items), lists(batch, batch.keep_mask)
        kept = [items[mask] for items, mask in zip(histories, masks, strict=True)]
        config = self.config
        annealed = min(config.objective.anneal_cap, self.step / config.objective.total_anneal_steps)
        weights = (
            config.objective.kl_per_item * batch.counts
            if config.objective.kl_per_item
            else annealed
        )

        def sums(w):
            nll, kl = losses(
                w, self.old, ITEMS, histories, kept, 1 - config.objective.dropout, noise
            )
            return sum(nll) + (weights * np.array(kl)).sum(), sum(nll), sum(kl)

        expected = sums(self.weights)
        self.apply(complex_step_gradients(lambda w: sums(w)[0] / batch.global_users, self.weights))
        return expected


@pytest.mark.parametrize(
    ("encoder", "decoder", "prior", "kl_per_item"),
    [
        ("dense", "linear", "composite", 0.05),
        ("dense", "deep", "normal", 0.0),
        ("tanh", "deep", "composite", 0.0),
        ("tanh", "linear", "normal", 0.05),
    ],
)
def test_every_part_of_a_model_follows_the_float64_reference(encoder, decoder, prior, kl_per_item):
    annealing = {} if kl_per_item else {"total_anneal_steps": 10, "anneal_cap": 0.6}
    config = Config.of(
        train=True, lr=0.01, latent_dim=LATENT, dropout=0.4, kl_per_item=kl_per_item, **annealing
    )
    batches = TrainingBatches(
        training_matrix(), BATCH, config.execution.seed, config.objective.dropout
    )
    architecture = Architecture(ITEMS, HIDDEN, LATENT, "tanh", encoder, decoder, prior)
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(architecture, config.execution.seed)
        step = TrainingStep(vae, config, SingleWorker(""), BATCH)
        session.run(tf.global_variables_initializer())
        names = {variable.op.name: variable for variable in vae.variables}
        reference = AnyModel(session.run(names), config, prior)
        for epoch in range(2):
            reference.renew_prior()
            for batch in batches.epoch(epoch):
                noise = session.run(
                    tf.random.stateless_normal([batch.global_users, LATENT], [0, batch.step])
                )
                totals, _ = session.run([step.totals, step.update], step.feed(batch))
                np.testing.assert_allclose(totals, reference.train(batch, noise), rtol=1e-4)
            session.run(step.end_of_epoch)
        for name, value in session.run(names).items():
            expected = reference.weights[name]
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=2e-5, err_msg=name)


MULTVAE = Architecture(ITEMS, HIDDEN, LATENT)
RECVAE = Architecture(ITEMS, HIDDEN, LATENT, "tanh", "dense", "linear", "composite")


def weights_after_an_epoch(batch_size, xla=False, architecture=MULTVAE):
    config = Config.of(train=True, hidden_dim=HIDDEN, latent_dim=LATENT, xla=xla)
    batches = TrainingBatches(
        training_matrix(), batch_size, config.execution.seed, config.objective.dropout
    )
    with tf.Graph().as_default(), tf.Session() as session:
        with compiled(xla):
            vae = VAE(architecture, config.execution.seed)
            step = TrainingStep(vae, config, SingleWorker(""), batch_size)
        session.run(tf.global_variables_initializer())
        for batch in batches.epoch(0):
            session.run(step.update, step.feed(batch))
        return session.run(vae.variables)


def test_the_loss_in_chunks_trains_the_same_weights(monkeypatch):
    whole = weights_after_an_epoch(USERS)
    monkeypatch.setattr("vae.models.graph.loss.multinomial_nll.__defaults__", (4,))
    for in_chunks, expected in zip(weights_after_an_epoch(USERS), whole, strict=True):
        np.testing.assert_allclose(in_chunks, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [MULTVAE, RECVAE], ids=["multvae", "recvae"])
def test_xla_trains_the_same_weights(architecture):
    with_xla, without = (weights_after_an_epoch(BATCH, xla, architecture) for xla in (True, False))
    for found, expected in zip(with_xla, without, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


def test_xla_compiles_the_matmuls_and_nothing_that_follows_the_items():
    config = Config.of(train=True, hidden_dim=HIDDEN, latent_dim=LATENT, xla=True)
    with tf.Graph().as_default() as graph, compiled(True):
        vae = VAE(Architecture(ITEMS, HIDDEN, LATENT), config.execution.seed)
        TrainingStep(vae, config, SingleWorker(""), BATCH)
        compiles = {}
        for operation in graph.get_operations():
            if "_XlaCompile" in operation.node_def.attr:
                compiles.setdefault(operation.type, []).append(operation.get_attr("_XlaCompile"))
    assert all(compiles["MatMul"])
    assert all(compiles["Softmax"])
    for kind in ("SparseTensorDenseAdd", "GatherNd", "StatelessRandomNormalV2", "RandomUniform"):
        assert not any(compiles[kind])
