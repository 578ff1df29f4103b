"""Everything in the TensorFlow graph: the model, its loss, training, ranking and inference.

All graphs are TF1-style: built explicitly with ``tf.compat.v1`` and run in a ``Session``.

Notation of tensor shapes, in all modules of this package: B users of a batch, I items (columns,
padded), H hidden units, Z latent dimensions, N interactions of a batch, K recommendations a user.
"""

import os

# Read when TensorFlow is first imported: no information, no warnings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow.compat.v1 as tf

# Control flow of TF1: loops are part of the graph itself, where Grappler's passes see into them.
tf.disable_control_flow_v2()

# The recipe uses TF1's API on purpose: no advice on every call that TF2 has another one.
tf.logging.set_verbosity(tf.logging.ERROR)
