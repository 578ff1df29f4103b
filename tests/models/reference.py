"""The models in plain float64 NumPy, written for the eye: one user's maths at a time.

The graph must agree with it to rounding. The mathematics shares nothing with the code under test,
which ``small_step`` builds.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import tensorflow.compat.v1 as tf
from scipy.sparse import csr_matrix

from vae.config import Architecture, Config
from vae.models.graph.precision import FLOAT32
from vae.models.graph.session import compiled
from vae.models.graph.train_step import TrainingStep
from vae.models.graph.vae import VAE
from vae.utils.distributed import Workers

ITEMS, HIDDEN, LATENT, USERS, BATCH = 21, 8, 3, 14, 6
"""A small model, its training users, and the users of a batch."""

RECVAE = ("dense", "linear", "composite")
"""The layers and the prior of RecVAE."""


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def affine(w, name, inputs):
    return inputs @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def swish(x):
    return x / (1 + np.exp(-x))


def layer_norm(w, name, x):
    centred = x - x.mean()
    return w[f"{name}/gain"] * centred / np.sqrt((centred**2).mean() + 0.1) + w[f"{name}/bias"]


def encode(w, x):
    """Mean and log variance of one user's input row, by either encoder."""
    if "encoder/norm_1/gain" not in w:
        hidden = np.tanh(affine(w, "encoder/hidden", x))
    else:
        outputs = [layer_norm(w, "encoder/norm_1", swish(affine(w, "encoder/hidden", x)))]
        for k in range(2, 6):
            before = affine(w, f"encoder/hidden_{k}", outputs[-1]) + sum(outputs)
            outputs.append(layer_norm(w, f"encoder/norm_{k}", swish(before)))
        hidden = outputs[-1]
    return np.split(affine(w, "encoder/latent", hidden), 2)


def decode(w, z):
    """Logits of one user's latent representation, by either decoder."""
    deep = "decoder/hidden/kernel" in w
    return affine(w, "decoder/items", np.tanh(affine(w, "decoder/hidden", z)) if deep else z)


def brute_force(weights, liked, seen, k):
    """The k best items of one user and their scores; ``liked`` and ``seen`` are 0 or 1 an item."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = np.zeros(w["encoder/hidden/kernel"].shape[0])
    x[: len(liked)] = liked / np.sqrt(max(liked.sum(), 1))
    mean, _ = encode(w, x)
    scores = decode(w, mean)[: len(seen)]
    unseen = np.flatnonzero(seen == 0)
    best = unseen[np.argsort(-scores[unseen], kind="stable")][:k]
    return best, scores[best]


def log_normal(z, mean, log_variance):
    return -0.5 * (np.log(2 * np.pi) + log_variance + (z - mean) ** 2 / np.exp(log_variance))


def losses(w, old, items, histories, kept, keep_probability, noise):
    """The users' negative log-likelihoods and KL divergences, each a list.

    ``old`` has the weights of the composite prior's encoder, None for the normal prior. All of it
    is analytic in the weights, which may be complex.
    """
    nll, kl = [], []
    for history, survivors, eps in zip(histories, kept, noise, strict=True):
        x, whole = np.zeros((2, w["encoder/hidden/kernel"].shape[0]))
        x[survivors] = 1 / np.sqrt(len(history)) / keep_probability
        whole[history] = 1 / np.sqrt(len(history))
        mean, log_variance = encode(w, x)
        z = mean + np.exp(log_variance / 2) * eps
        logits = decode(w, z)[:items]
        logits = logits - logits.real.max()
        nll.append(len(history) * np.log(np.exp(logits).sum()) - logits[history].sum())
        if old is None:
            kl.append(0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum())
        else:
            components = [
                (0.15, (np.zeros_like(z), np.zeros_like(z))),
                (0.75, encode(old, whole)),
                (0.10, (np.zeros_like(z), np.full_like(z, 10))),
            ]
            density = sum(part * np.exp(log_normal(z, *normal)) for part, normal in components)
            kl.append((log_normal(z, mean, log_variance) - np.log(density)).sum())
    return nll, kl


def complex_step_gradients(loss, weights):
    """The gradients of an analytic loss, exact to rounding (Squire and Trapp 1998)."""
    w = {name: value.astype(complex) for name, value in weights.items()}
    gradients = {name: np.zeros(value.shape) for name, value in weights.items()}
    for name, value in w.items():
        for index in np.ndindex(value.shape):
            value[index] += 1e-30j
            gradients[name][index] = loss(w).imag / 1e-30
            value[index] = value[index].real
    return gradients


class Adam:
    """Kingma and Ba 2015, end of section 2: the form TensorFlow uses."""

    def __init__(self, weights, lr, beta1, beta2):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.step = 0

    def apply(self, gradients):
        self.step += 1
        t = self.step
        rate = self.lr * np.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        for name, gradient in gradients.items():
            self.first[name] += (1 - self.beta1) * (gradient - self.first[name])
            self.second[name] += (1 - self.beta2) * (gradient**2 - self.second[name])
            update = rate * self.first[name] / (np.sqrt(self.second[name]) + 1e-8)
            self.weights[name] -= update


class ReferenceStep(Adam):
    """Objective and Adam of every model; ``prior`` is that of the architecture."""

    def __init__(self, weights, config, prior="normal"):
        super().__init__(weights, config.training.lr, config.training.beta1, config.training.beta2)
        self.config, self.prior, self.old = config, prior, None

    def renew_prior(self):
        if self.prior == "composite":
            self.old = {name: value.copy() for name, value in self.weights.items()}

    def sums(self, w, batch, noise):
        """The sums over the users of the objective, the likelihood and the divergence."""
        config, users = self.config, batch.global_users
        starts = np.cumsum(batch.counts)[:-1]
        histories, masks = np.split(batch.items, starts), np.split(batch.keep_mask, starts)
        kept = [items[mask] for items, mask in zip(histories, masks, strict=True)]
        nll, kl = losses(w, self.old, ITEMS, histories, kept, 1 - config.objective.dropout, noise)
        annealed = min(config.objective.anneal_cap, self.step / config.objective.total_anneal_steps)
        weights = (
            config.objective.kl_per_item * batch.counts
            if config.objective.kl_per_item
            else annealed
        )
        penalty = sum((value**2).sum() for name, value in w.items() if name.endswith("kernel"))
        objective = (
            sum(nll) + (weights * np.array(kl)).sum() + users * config.objective.lam * penalty
        )
        return objective, sum(nll), sum(kl)

    def gradients(self, batch, noise):
        users = batch.global_users
        return complex_step_gradients(lambda w: self.sums(w, batch, noise)[0] / users, self.weights)


def training_matrix():
    rng = np.random.default_rng(5)
    dense = (rng.random((USERS, ITEMS)) < 0.3).astype(np.uint8)
    dense[np.arange(USERS), rng.integers(0, ITEMS, USERS)] = 1
    return csr_matrix(dense)


def flags(**changes):
    """Flags of the objective and of Adam."""
    return Config.of(train=True, **changes)


@contextmanager
def small_step(
    config,
    *layers,
    workers=None,
    max_users=BATCH,
    precision=FLOAT32,
    xla=False,
):
    """Yield a session, a small model and its training step; ``layers`` are those of the model."""
    workers = workers or Workers()
    with tf.Graph().as_default(), tf.Session() as session:
        with compiled(xla):
            vae = VAE(Architecture(ITEMS, HIDDEN, LATENT, "tanh", *layers), config.execution.seed)
            step = TrainingStep(
                vae,
                config.objective,
                config.training,
                config.execution.seed,
                workers,
                max_users,
                precision,
            )
        session.run(tf.global_variables_initializer())
        yield session, vae, step


def noise_of(session, config, batch):
    """The noise of all users of a global batch."""
    shape, seed = [batch.global_users, LATENT], [config.execution.seed, batch.step]
    return session.run(tf.random.stateless_normal(shape, seed=seed))


class ChangedGradients(Workers):
    """A worker whose gradients, with their weights, go through a function."""

    def __init__(self, change):
        self.change = change

    def optimizer(self, optimizer):
        compute = optimizer.compute_gradients
        optimizer.compute_gradients = lambda *args, **more: self.change(compute(*args, **more))
        return optimizer


class KeptGradients(ChangedGradients):
    """A worker whose gradients, unchanged, are also in ``by_name``, by the names of the weights."""

    def __init__(self):
        super().__init__(self._keep)
        self.by_name = {}

    def _keep(self, pairs):
        self.by_name.update({weight.op.name: gradient for gradient, weight in pairs})
        return pairs
