"""Summaries for TensorBoard, one point an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow.compat.v1 as tf

from vae.utils.files import make_folder

_VALIDATION = ("ndcg", "recall", "valid_")
"""What the names of a validation's figures begin with."""


class Summaries:
    """Writes each epoch's figures to an event file, when they come: see ``RunLog``.

    Args:
        folder: of event files; those of the run that is resumed belong there too.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder, "--tensorboard_dir")
        self._folder = folder
        self._writer: tf.summary.FileWriter | None = None

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write figures under the names ``train/loss``, ``validation/ndcg@100`` and so on."""
        if self._writer is None:
            self._writer = self._open(epoch)
        values = [tf.Summary.Value(tag=_tag(k), simple_value=v) for k, v in figures.items()]
        self._writer.add_summary(tf.Summary(value=values), epoch)
        self._writer.flush()

    def _open(self, epoch: int) -> tf.summary.FileWriter:
        """An event file of this run alone.

        The mark of a start makes TensorBoard forget what earlier files hold of this epoch and of
        later ones: a killed run's, after its last checkpoint, or all of a run that starts over.
        """
        with tf.Graph().as_default():  # a FileWriter refuses eager execution
            # The suffix keeps runs that start within one second apart.
            writer = tf.summary.FileWriter(str(self._folder), filename_suffix=f".epoch-{epoch}")
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), epoch)
        return writer


def _tag(name: str) -> str:
    return f"{'validation' if name.startswith(_VALIDATION) else 'train'}/{name}"
