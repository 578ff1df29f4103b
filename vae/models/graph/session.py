"""Sessions of a worker: its device, threads, XLA scopes and traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import timeline

from vae.errors import UserError
from vae.models.graph.precision import FLOAT32, Precision
from vae.utils.atomic import write_atomically
from vae.utils.distributed import Workers
from vae.utils.outputs import report_write_errors


@contextmanager
def open_session(
    workers: Workers, precision: Precision = FLOAT32, tf32: bool = True
) -> Iterator[tf.Session]:
    """Yield a session of the current graph as by :func:`new_session`, and close it.

    Raises:
        UserError: as :func:`new_session` and :func:`report_session_errors`.
    """
    with new_session(workers, precision, tf32) as session, report_session_errors():
        yield session


def new_session(
    workers: Workers,
    precision: Precision = FLOAT32,
    tf32: bool = True,
    parallel_ops: int = 1,
    fuses: bool = True,
) -> tf.Session:
    """Return a session of the current graph on the worker's GPU, or on the CPU without one.

    Args:
        workers: their ``local_rank`` selects the GPU.
        precision: of the session's graphs.
        tf32: whether GPUs may round the factors of float32 matmuls to TF32.
        parallel_ops: operations that a CPU may run at the same time.
        fuses: whether TensorFlow may fuse operations for a CPU. For few users, what it fuses takes
            longer than its parts do (docs/performance.md).

    Raises:
        UserError: the host has GPUs, but fewer than workers.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus and workers.local_rank >= gpus:
        raise UserError(
            f"local rank {workers.local_rank} has no GPU: this host has {gpus}; "
            f"start at most {gpus} workers here."
        )
    settings = tf.ConfigProto(allow_soft_placement=True)
    if not gpus:
        # Each operation runs on all cores. In training, two large matmuls at the same time compete
        # for the caches and take a fifth longer than one after the other (docs/performance.md).
        settings.inter_op_parallelism_threads = 1
        if parallel_ops > 1:
            # A separate pool: the shared one has the size that the process's first session set.
            settings.session_inter_op_thread_pool.add(num_threads=parallel_ops)
        if not fuses:
            settings.graph_options.rewrite_options.remapping = RewriterConfig.OFF
    precision.configure(settings)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)  # of the whole process
    settings.gpu_options.allow_growth = True
    settings.gpu_options.visible_device_list = str(workers.local_rank)
    return tf.Session(config=settings)


@contextmanager
def report_session_errors() -> Iterator[None]:
    """Raise a ``UserError`` if the block runs out of memory, or another worker exited."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"out of memory: {error.message.splitlines()[0]}; lower --batch_size_train or "
            "--batch_size_validation, or start more workers.",
            exit_code=1,
        ) from None
    except tf.errors.OpError as error:
        if "Horovod has been shut down" not in error.message:
            raise
        raise UserError("Another worker exited; see its error message.", exit_code=1) from None


def compiled(enabled: bool) -> AbstractContextManager[None]:
    """Return a scope whose operations XLA compiles (``--xla``), if enabled.

    XLA compiles for fixed shapes. All batches but the last of an epoch have the same number of
    users, so operations on B rows are compiled. The number of interactions differs from batch to
    batch: operations of length N belong in an :func:`uncompiled` scope, or they would be compiled
    anew in each step. So do random numbers, for which XLA has other generators.
    """
    return tf.xla.experimental.jit_scope() if enabled else nullcontext()


uncompiled = partial(tf.xla.experimental.jit_scope, compile_ops=False)
"""Returns a scope whose operations are never compiled."""


def run_traced(session: tf.Session, fetches: Any, feed: dict[tf.Tensor, Any], path: Path) -> Any:
    """Run ``fetches`` once and write a timeline of the operations to ``path`` (``--trace``).

    The timeline opens in chrome://tracing and https://ui.perfetto.dev.

    Raises:
        UserError: the file cannot be written.
    """
    options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    metadata = tf.RunMetadata()
    result = session.run(fetches, feed, options=options, run_metadata=metadata)
    trace = timeline.Timeline(metadata.step_stats).generate_chrome_trace_format()
    with report_write_errors(f"--trace {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, trace)
    return result
