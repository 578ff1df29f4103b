"""The model, its loss, training, evaluation and inference in TensorFlow.

All graphs are TF1-style: built explicitly with ``tf.compat.v1`` and run in a ``Session``.

Notation of tensor shapes, in all modules of this package: B users of a batch, I items (padded), H
hidden units, Z latent dimensions, N interactions of a batch, K recommendations per user.
"""

from vae.utils.console import quiet_tensorflow

with quiet_tensorflow():
    import tensorflow.compat.v1 as tf

# Control flow of TF1: loops are part of the graph itself, so Grappler's passes see into them.
tf.disable_control_flow_v2()

# The recipe uses TF1's API on purpose: no deprecation warnings.
tf.logging.set_verbosity(tf.logging.ERROR)
