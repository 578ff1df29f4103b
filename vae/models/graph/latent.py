"""The latent space: samples of the users' distributions, and their KL divergence from a prior."""

from __future__ import annotations

import math

import tensorflow.compat.v1 as tf

Normal = tuple[tf.Tensor, tf.Tensor]
"""Mean and log variance, each (B, Z) float32, or scalars that hold for all users."""

_STANDARD_WEIGHT, _OLD_POSTERIOR_WEIGHT, _WIDE_WEIGHT = 0.15, 0.75, 0.10
_WIDE_LOG_VARIANCE = 10.0
"""The mixture of the composite prior, as in the code of Shenbin et al."""


def sample(mean: tf.Tensor, log_variance: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Return a (B, Z) sample of the latent distribution: mean + standard deviation * noise.

    The reparameterisation trick of section 2.2.1 of Liang et al. (Kingma and Welling 2014,
    arXiv:1312.6114), with (B, Z) standard normal noise.
    """
    return mean + tf.exp(log_variance / 2) * noise


def kl_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Return each user's KL divergence from the standard normal distribution in nats, (B,)."""
    return 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1 - log_variance, axis=1)


def composite_kl_divergence(
    latent: tf.Tensor, posterior: Normal, old_posterior: Normal
) -> tf.Tensor:
    """Return each user's KL divergence from the composite prior in nats, by one sample.

    In each dimension the prior is a mixture of the standard normal distribution, the user's
    posterior by the encoder of the epoch before, and a wide normal distribution (Shenbin et al.
    2020, arXiv:1912.11160, section "Composite prior"). The divergence has no closed form.

    Args:
        latent: (B, Z) float32, the sample of ``posterior`` that is decoded.
        posterior: distribution of the users' latent representations.
        old_posterior: the same by the encoder of the epoch before.

    Returns:
        (B,) float32 estimates, which may be negative.
    """
    components = [
        (_STANDARD_WEIGHT, (0.0, 0.0)),
        (_OLD_POSTERIOR_WEIGHT, old_posterior),
        (_WIDE_WEIGHT, (0.0, _WIDE_LOG_VARIANCE)),
    ]
    log_prior = tf.reduce_logsumexp(
        [math.log(weight) + _log_density(latent, normal) for weight, normal in components], axis=0
    )
    return tf.reduce_sum(_log_density(latent, posterior) - log_prior, axis=1)


def _log_density(latent: tf.Tensor, normal: Normal) -> tf.Tensor:
    """Return the (B, Z) logarithms of the densities of a normal distribution."""
    mean, log_variance = normal
    squares = tf.square(latent - mean) * tf.exp(-log_variance)
    return -0.5 * (math.log(2 * math.pi) + log_variance + squares)
