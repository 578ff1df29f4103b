"""Event files for TensorBoard, one point per epoch and metric."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from vae.utils.atomic import make_folder, written

_VALIDATION = ("ndcg", "recall", "valid_")
"""Prefixes of the names that a validation logs."""


class TensorBoardWriter:
    """Write each epoch's metrics to an event file as they are logged; a callback of ``RunLog``.

    Args:
        folder: of event files; those of the run that is resumed belong there too.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder, "--tensorboard_dir")
        self._folder = folder
        self._writer: tf.io.TFRecordWriter | None = None

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write values under the names ``train/loss``, ``validation/ndcg@100`` and so on.

        Raises:
            UserError: they cannot be written.
        """
        points = [tf.Summary.Value(tag=_tag(k), simple_value=v) for k, v in values.items()]
        with written("--tensorboard_dir", self._folder):
            try:
                if self._writer is None:
                    self._writer = self._open(epoch)
                self._write(self._writer, step=epoch, summary=tf.Summary(value=points))
            except tf.errors.OpError as error:
                raise OSError(0, error.message.rpartition("; ")[2]) from None

    def _open(self, epoch: int) -> tf.io.TFRecordWriter:
        """An event file of this run alone.

        Its START entry makes TensorBoard drop the points of earlier files from this epoch on: those
        that a killed run logged after its last checkpoint, or all of a run that was restarted.
        """
        # TensorBoard reads files in the order of their names. TensorFlow's own FileWriter writes in
        # a thread, where a full disk shows as nothing but a stack trace.
        name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}.epoch-{epoch}"
        writer = tf.io.TFRecordWriter(os.fsencode(self._folder / name))
        self._write(writer, file_version="brain.Event:2")
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._write(writer, step=epoch, session_log=start)
        return writer

    def _write(self, writer: tf.io.TFRecordWriter, **fields: Any) -> None:
        writer.write(tf.Event(wall_time=time.time(), **fields).SerializeToString())
        writer.flush()


def _tag(name: str) -> str:
    return f"{'validation' if name.startswith(_VALIDATION) else 'train'}/{name}"
