"""The latent space: samples of the users' distributions, and their KL divergence from a prior."""

from __future__ import annotations

import math

import tensorflow.compat.v1 as tf

Normal = tuple[tf.Tensor, tf.Tensor]
"""Mean and log variance, each (B, Z) float32."""

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
    latent: tf.Tensor, noise: tf.Tensor, log_variance: tf.Tensor, old_posterior: Normal
) -> tf.Tensor:
    """Return each user's KL divergence from the composite prior in nats, by one sample.

    In each dimension the prior is a mixture of the standard normal distribution, the user's
    posterior by the encoder of the epoch before, and a wide normal distribution (Shenbin et al.
    2020, arXiv:1912.11160, section "Composite prior"). The divergence has no closed form.

    Args:
        latent: (B, Z) float32, the sample of the posterior that is decoded.
        noise: (B, Z) float32, the noise that it was computed from.
        log_variance: (B, Z) float32 of the posterior.
        old_posterior: the user's distribution by the encoder of the epoch before.

    Returns:
        (B,) float32 estimates, which may be negative.
    """
    # Logarithms of densities, but for the constant -log(2 pi) / 2 of each. Each operation is a pass
    # over (B, Z), so the two components that depend on the sample alone are added first.
    squares = tf.square(latent)
    wide = math.log(_WIDE_WEIGHT / _STANDARD_WEIGHT) - 0.5 * _WIDE_LOG_VARIANCE
    narrower = 0.5 * (1 - math.exp(-_WIDE_LOG_VARIANCE))
    fixed = tf.nn.softplus(narrower * squares + wide) - 0.5 * squares + math.log(_STANDARD_WEIGHT)
    old_mean, old_log_variance = old_posterior
    old_squares = tf.square(latent - old_mean) * tf.exp(-old_log_variance)
    old = math.log(_OLD_POSTERIOR_WEIGHT) - 0.5 * (old_log_variance + old_squares)
    log_prior = old + tf.nn.softplus(fixed - old)
    # (latent - mean)^2 / variance is the square of the noise.
    return tf.reduce_sum(-0.5 * (log_variance + tf.square(noise)) - log_prior, axis=1)
