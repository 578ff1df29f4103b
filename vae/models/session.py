"""One TensorFlow session a worker."""

from __future__ import annotations

import math

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from vae.config import Config
from vae.errors import UserError
from vae.utils.workers import Workers

# Control flow of TF1: loops are part of the graph itself, where Grappler's passes see into them.
tf.disable_control_flow_v2()

# The recipe uses TF1's API on purpose: no advice on every call that TF2 has another one.
tf.logging.set_verbosity(tf.logging.ERROR)


_LARGEST_GPU_PRODUCT = 2**31
"""Interactions times units that TensorFlow's sparse product takes on a GPU (its kernel's index)."""


def check_gpu_limit(interactions: float, hidden_dim: int) -> None:
    """Refuses, before training, a batch that a GPU would refuse in the middle of it.

    Args:
        interactions: of one worker's share of a batch, after dropout, on average.
        hidden_dim: units of the first hidden layer.

    Raises:
        UserError: the share is too large, and what batch would do.
    """
    share = interactions * hidden_dim / _LARGEST_GPU_PRODUCT
    if share > 1 and tf.config.list_physical_devices("GPU"):
        raise UserError(
            f"a worker's share of a batch holds {interactions:,.0f} interactions on average, more "
            f"than a GPU takes with {hidden_dim} hidden units; divide --batch_size_train by "
            f"{math.ceil(1.05 * share)} or start more workers."
        )


def open_session(config: Config, workers: Workers) -> tf.Session:
    """A session for the current graph on the worker's own GPU, if there is one, else on the CPU.

    Raises:
        UserError: this machine has GPUs, but fewer than workers.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus and workers.local_rank >= gpus:
        raise UserError(
            f"worker {workers.local_rank} of this machine has no GPU of its own, there are {gpus}; "
            f"start at most {gpus} workers here."
        )
    settings = tf.ConfigProto(allow_soft_placement=True)
    if not gpus:
        # One operation after another, each on all cores: two large matmuls side by side fight for
        # the caches and take a fifth longer than in turn (docs/performance.md).
        settings.inter_op_parallelism_threads = 1
    if gpus and config.amp:
        settings.graph_options.rewrite_options.auto_mixed_precision = RewriterConfig.ON
    if config.no_tf32:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    settings.gpu_options.allow_growth = True
    settings.gpu_options.visible_device_list = str(workers.local_rank)
    return tf.Session(config=settings)
