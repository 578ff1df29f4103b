"""Everything in the TensorFlow graph: the model, its loss, training, ranking and inference.

All graphs are TF1-style: built explicitly with ``tf.compat.v1`` and run in a ``Session``.

Notation of tensor shapes, in all modules of this package: B users of a batch, I items (columns,
padded), H hidden units, Z latent dimensions, N interactions of a batch, K recommendations a user.
"""
