"""``--xla``: which operations are compiled.

XLA compiles for fixed shapes. A batch's users are as many in every step but the last of an epoch,
so what has B rows is compiled; its items differ in number from step to step, and everything of
length N stays outside, or each step would be compiled anew. So does everything random, which XLA
draws from other generators.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import tensorflow.compat.v1 as tf


def compiled(enabled: bool) -> AbstractContextManager[None]:
    """Operations made in this context are compiled, if asked for."""
    scope: AbstractContextManager[None] = (
        tf.xla.experimental.jit_scope() if enabled else nullcontext()
    )
    return scope


def uncompiled() -> AbstractContextManager[None]:
    """Operations made in this context are never compiled."""
    scope: AbstractContextManager[None] = tf.xla.experimental.jit_scope(compile_ops=False)
    return scope
