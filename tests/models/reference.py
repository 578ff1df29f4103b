"""The models in plain float64 NumPy, written for the eye: one user's maths at a time.

The graph must agree with it to rounding. Nothing here is shared with the code under test.
"""

from __future__ import annotations

import numpy as np


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
            density = sum(share * np.exp(log_normal(z, *normal)) for share, normal in components)
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
    """Loss, gradients and Adam for the tanh model; ``weights`` maps the graph's names to arrays."""

    def __init__(self, weights, items, lr, beta1, beta2, lam, anneal_steps, anneal_cap):
        super().__init__(weights, lr, beta1, beta2)
        self.items, self.lam = items, lam
        self.anneal_steps, self.anneal_cap = anneal_steps, anneal_cap

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
