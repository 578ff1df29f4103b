"""Mult-VAE in plain float64 NumPy, written for the eye: one user's maths at a time.

The graph must agree with it to rounding. Nothing here is shared with the code under test.
"""

from __future__ import annotations

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def brute_force(weights, liked, seen, k):
    """The k best items of one user and their scores; ``liked`` and ``seen`` are 0 or 1 an item."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    latent = w["decoder/hidden/kernel"].shape[0]
    x = np.zeros(w["encoder/hidden/kernel"].shape[0])
    x[: len(liked)] = liked / np.sqrt(max(liked.sum(), 1))
    hidden = np.tanh(x @ w["encoder/hidden/kernel"] + w["encoder/hidden/bias"])
    mean = (hidden @ w["encoder/latent/kernel"] + w["encoder/latent/bias"])[:latent]
    hidden = np.tanh(mean @ w["decoder/hidden/kernel"] + w["decoder/hidden/bias"])
    scores = (hidden @ w["decoder/items/kernel"] + w["decoder/items/bias"])[: len(seen)]
    unseen = np.flatnonzero(seen == 0)
    best = unseen[np.argsort(-scores[unseen], kind="stable")][:k]
    return best, scores[best]


class ReferenceStep:
    """Loss, gradients and Adam for the tanh model; ``weights`` maps the graph's names to arrays."""

    def __init__(self, weights, items, lr, beta1, beta2, lam, anneal_steps, anneal_cap):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.items, self.lam = items, lam
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.anneal_steps, self.anneal_cap = anneal_steps, anneal_cap
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.step = 0

    def beta(self):
        return min(self.anneal_cap, self.step / self.anneal_steps)

    def loss_and_gradients(self, histories, kept, keep_probability, noise):
        """``histories`` and ``kept`` are lists of item lists; ``noise`` has one row a user."""
        w = self.weights
        gradients = {name: np.zeros_like(value) for name, value in w.items()}
        nll_sum = kl_sum = 0.0
        users = len(histories)
        for items, survivors, eps in zip(histories, kept, noise, strict=True):
            x = np.zeros(w["encoder/hidden/kernel"].shape[0])
            x[survivors] = 1 / np.sqrt(len(items)) / keep_probability
            h1 = np.tanh(x @ w["encoder/hidden/kernel"] + w["encoder/hidden/bias"])
            both = h1 @ w["encoder/latent/kernel"] + w["encoder/latent/bias"]
            mean, log_variance = np.split(both, 2)
            std = np.exp(log_variance / 2)
            z = mean + std * eps
            h2 = np.tanh(z @ w["decoder/hidden/kernel"] + w["decoder/hidden/bias"])
            logits = (h2 @ w["decoder/items/kernel"] + w["decoder/items/bias"])[: self.items]
            log_p = log_softmax(logits)
            nll_sum += -log_p[items].sum()
            kl_sum += 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum()

            target = np.zeros(self.items)
            target[items] = 1
            d_logits = np.zeros(len(w["decoder/items/bias"]))
            d_logits[: self.items] = (len(items) * np.exp(log_p) - target) / users
            d_h2 = w["decoder/items/kernel"] @ d_logits * (1 - h2**2)
            d_z = w["decoder/hidden/kernel"] @ d_h2
            beta = self.beta() / users
            d_mean = d_z + beta * mean
            d_log_variance = d_z * eps * std / 2 + beta * 0.5 * (np.exp(log_variance) - 1)
            d_both = np.concatenate([d_mean, d_log_variance])
            d_h1 = w["encoder/latent/kernel"] @ d_both * (1 - h1**2)
            for name, inputs, outputs in [
                ("encoder/hidden", x, d_h1),
                ("encoder/latent", h1, d_both),
                ("decoder/hidden", z, d_h2),
                ("decoder/items", h2, d_logits),
            ]:
                gradients[f"{name}/kernel"] += np.outer(inputs, outputs)
                gradients[f"{name}/bias"] += outputs
        penalty = 0.0
        for name, value in w.items():
            if name.endswith("kernel"):
                penalty += (value**2).sum()
                gradients[name] += 2 * self.lam * value
        loss = (nll_sum + self.beta() * kl_sum) / users + self.lam * penalty
        return (loss, nll_sum / users, kl_sum / users), gradients

    def apply(self, gradients):
        """Adam (Kingma and Ba 2015, end of section 2: the form TensorFlow uses)."""
        self.step += 1
        t = self.step
        rate = self.lr * np.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        for name, gradient in gradients.items():
            self.first[name] += (1 - self.beta1) * (gradient - self.first[name])
            self.second[name] += (1 - self.beta2) * (gradient**2 - self.second[name])
            update = rate * self.first[name] / (np.sqrt(self.second[name]) + 1e-8)
            self.weights[name] -= update
