"""``--amp``: mixed precision, on GPUs and on CPUs.

On a GPU it is TensorFlow's automatic mixed precision: Grappler rewrites the graph to float16 where
that is safe, and the loss is scaled dynamically (Micikevicius et al. 2018, arXiv:1710.03740). On a
CPU with bfloat16 instructions the products of dense layers, which are nearly all of the work, are
computed in bfloat16, which has the range of float32 and needs no scaling. In both cases the
weights, Adam's slots, the first layer, normalisations and divergences are float32.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from vae.utils.host import cpu_info

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Linux's names of bfloat16 instructions (x86, x86, ARM)."""

MAX_OVERFLOWS = 64
"""Consecutive steps that may be skipped: this many halvings reduce any loss scale that training
reaches to 1, so gradients that still overflow do so for another reason."""


@dataclass(frozen=True)
class Precision:
    """Precision of a graph.

    Attributes:
        dtype: dtype of the products of dense layers in the graph as it is built.
        rewritten: whether TensorFlow rewrites the graph to float16, which needs loss scaling.
    """

    dtype: tf.DType
    description: str
    rewritten: bool = False

    def configure(self, settings: tf.ConfigProto) -> None:
        """Switch the float16 rewrite of a session's graphs on or off.

        Off must be explicit: once an optimizer has enabled the rewrite, TensorFlow applies it in
        every later session of the process whose settings leave it at its default.
        """
        rewrites = settings.graph_options.rewrite_options
        rewrites.auto_mixed_precision = RewriterConfig.ON if self.rewritten else RewriterConfig.OFF
        if self.rewritten:
            # From TensorFlow 2.20 on the rewrite includes a softmax after a matmul, whose sums over
            # all items need float32.
            name = "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE"
            os.environ.setdefault(name, "Softmax")


FLOAT32 = Precision(tf.float32, "float32")
BFLOAT16 = Precision(tf.bfloat16, "bfloat16 in the products of dense layers, float32 elsewhere")
FLOAT16_REWRITE = Precision(
    tf.float32, "float16 where TensorFlow's rewrite finds it safe, float32 elsewhere", True
)


def choose_precision(amp: bool) -> Precision:
    """Return the precision of ``--amp`` on this machine; float32 without the flag."""
    if not amp:
        return FLOAT32
    if tf.config.list_physical_devices("GPU"):
        return FLOAT16_REWRITE
    if _BFLOAT16_FLAGS & set(cpu_info("flags", "Features").split()):
        return BFLOAT16
    reason = "--amp has no effect: the processor has no bfloat16 instructions"
    return Precision(tf.float32, f"float32 ({reason})")
