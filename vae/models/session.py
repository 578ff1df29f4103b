"""One TensorFlow session a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow.compat.v1 as tf

from vae.config import Config
from vae.errors import UserError
from vae.models.precision import FLOAT32, Precision
from vae.utils.distributed import Workers


@contextmanager
def open_session(
    config: Config, workers: Workers, precision: Precision = FLOAT32, at_once: int = 1
) -> Iterator[tf.Session]:
    """A session for the current graph on the worker's own GPU, if there is one, else on the CPU.

    Args:
        config: the flags.
        workers: which GPU is this worker's.
        precision: in which its graphs compute.
        at_once: operations that a CPU may run side by side.

    Raises:
        UserError: this machine has GPUs, but fewer than workers; or, from within, memory has run
            out or another worker has ended.
    """
    with tf.Session(config=_settings(config, workers, precision, at_once)) as session:
        try:
            yield session
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(
                f"Out of memory: {error.message.splitlines()[0]}; give a smaller "
                "--batch_size_train or --batch_size_validation, or start more workers.",
                exit_code=1,
            ) from None
        except tf.errors.OpError as error:
            if "Horovod has been shut down" not in error.message:
                raise
            raise UserError(
                "Another worker has ended; its own message says why.", exit_code=1
            ) from None


def _settings(
    config: Config, workers: Workers, precision: Precision, at_once: int
) -> tf.ConfigProto:
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus and workers.local_rank >= gpus:
        raise UserError(
            f"worker {workers.local_rank} of this machine has no GPU of its own, there are {gpus}; "
            f"start at most {gpus} workers here."
        )
    settings = tf.ConfigProto(allow_soft_placement=True)
    if not gpus:
        # Each on all cores. In training, two large matmuls side by side fight for the caches and
        # take a fifth longer than in turn (docs/performance.md).
        settings.inter_op_parallelism_threads = 1
        if at_once > 1:
            # Its own pool: the shared one has the size that the process's first session gave it.
            settings.session_inter_op_thread_pool.add(num_threads=at_once)
    precision.configure(settings)
    if config.no_tf32:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    settings.gpu_options.allow_growth = True
    settings.gpu_options.visible_device_list = str(workers.local_rank)
    return settings
