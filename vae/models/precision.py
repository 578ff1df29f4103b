"""``--amp``: mixed precision, on GPUs and on CPUs.

On a GPU it is TensorFlow's automatic mixed precision: Grappler rewrites the graph to float16 where
that is safe, and the loss is scaled dynamically. On a CPU whose matrix units know bfloat16, the
last layer, nearly all of the work, computes in bfloat16; that has float32's range, so nothing needs
scaling. In both, weights, Adam's slots, the loss and all sums over users stay in float32.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls a processor's bfloat16 instructions (x86, x86, ARM)."""

_KEPT_FROM_REWRITE = "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE"

MAX_OVERFLOWS = 64
"""Steps in a row that may be skipped: as many halvings take any loss scale that training reaches
down to 1, so from then on it is not the scale that makes gradients overflow."""


@dataclass(frozen=True)
class Precision:
    """How a graph computes.

    Attributes:
        dtype: of the last layer's matmuls, as far as this program chooses it.
        description: for the log.
        rewritten: whether TensorFlow chooses float16 by itself, which needs loss scaling.
    """

    dtype: tf.DType
    description: str
    rewritten: bool = False

    def configure(self, settings: tf.ConfigProto) -> None:
        """Switch the float16 rewrite of a session's graphs on or off.

        Off has to be said too: once an optimizer has asked for the rewrite, TensorFlow switches it
        on in every later session of the process that says nothing.
        """
        rewrites = settings.graph_options.rewrite_options
        rewrites.auto_mixed_precision = RewriterConfig.ON if self.rewritten else RewriterConfig.OFF
        if self.rewritten:
            # From TensorFlow 2.20 on the rewrite takes a softmax behind a matmul too, whose sums
            # over a catalogue need float32.
            os.environ.setdefault(_KEPT_FROM_REWRITE, "Softmax")


FLOAT32 = Precision(tf.float32, "float32")
BFLOAT16 = Precision(tf.bfloat16, "bfloat16 in the last layer, float32 elsewhere")
FLOAT16_REWRITE = Precision(
    tf.float32, "float16 where TensorFlow's rewrite finds it safe, float32 elsewhere", True
)


def choose_precision(amp: bool) -> Precision:
    """The precision that this machine offers for ``--amp``; float32 without it."""
    if not amp:
        return FLOAT32
    if tf.config.list_physical_devices("GPU"):
        return FLOAT16_REWRITE
    if _cpu_flags() & _BFLOAT16_FLAGS:
        return BFLOAT16
    reason = "--amp has no effect here, the processor has no bfloat16 instructions"
    return Precision(tf.float32, f"float32 ({reason})")


class LossScaling:
    """Dynamic loss scaling for float16, whose gradients would underflow.

    A step whose gradients overflow is skipped: weights, slots and global step stay, and the scale
    is halved. After ``growth_interval`` good steps in a row it is doubled.

    Args:
        growth_interval: in steps; TensorFlow's default is 2,000.
    """

    def __init__(self, growth_interval: int = 2000) -> None:
        self._loss_scale = tf.mixed_precision.DynamicLossScale(increment_period=growth_interval)
        self.value: tf.Tensor = self._loss_scale()

    def wrap(self, optimizer: tf.train.Optimizer) -> tf.train.Optimizer:
        """The optimizer with loss scaling and the float16 rewrite of the graph.

        It goes round Horovod's optimizer: all ranks see the same sum of gradients and skip the same
        steps.
        """
        return tf.mixed_precision.enable_mixed_precision_graph_rewrite(optimizer, self._loss_scale)


class OverflowStreak:
    """Counts the steps in a row that overflowing gradients made the optimizer skip.

    All ranks skip the same steps, and so count alike.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self._applied: int | None = None

    def add(self, global_step_before: int) -> None:
        """Counts the step before one that starts from ``global_step_before``.

        Args:
            global_step_before: the global step, which a skipped step leaves as it was.
        """
        self.in_a_row = self.in_a_row + 1 if global_step_before == self._applied else 0
        self._applied = global_step_before


def _cpu_flags() -> set[str]:
    """The features that Linux lists for the first processor; none on other systems."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()
