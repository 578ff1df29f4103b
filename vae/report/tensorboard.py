"""Summaries for TensorBoard, one point per epoch."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from vae.utils.outputs import make_folder, report_write_errors

_VALIDATION = ("ndcg", "recall", "valid_")
"""Prefixes of the names of validation metrics."""


class TensorBoardWriter:
    """Writes the metrics of each epoch to an event file; a callback of ``RunLog``.

    A resumed run continues in the same folder: the points of epochs after those that it finds
    completed are replaced.
    Nothing is written if it is to ``only_check``.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, completed: int = 0, only_check: bool = False) -> None:
        make_folder(folder, "--tensorboard_dir", only_check)
        self._folder = folder
        self._first_epoch = completed + 1
        self._writer: tf.io.TFRecordWriter | None = None

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write metrics under tags such as ``train/loss`` and ``validation/ndcg@100``.

        Raises:
            UserError: the event file cannot be written.
        """
        values = [tf.Summary.Value(tag=_tag(k), simple_value=v) for k, v in metrics.items()]
        with report_write_errors(f"--tensorboard_dir {self._folder}"):
            try:
                if self._writer is None:
                    self._writer = self._open()
                self._write(self._writer, step=epoch, summary=tf.Summary(value=values))
            except tf.errors.OpError as error:
                raise OSError(0, error.message.rpartition("; ")[2]) from None

    def _open(self) -> tf.io.TFRecordWriter:
        """Open an event file for this run alone.

        Its START event makes TensorBoard discard the points of epochs to train in earlier
        files: those of a killed run after its last checkpoint, or all points when a run restarts.
        """
        # TensorBoard reads files in the order of their names. TensorFlow's own FileWriter writes in
        # a thread, which would report a full disk by a stack trace alone.
        name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}.epoch-{self._first_epoch}"
        writer = tf.io.TFRecordWriter(os.fsencode(self._folder / name))
        self._write(writer, file_version="brain.Event:2")
        start = tf.SessionLog(status=tf.SessionLog.START)
        self._write(writer, step=self._first_epoch, session_log=start)
        return writer

    def _write(self, writer: tf.io.TFRecordWriter, **fields: Any) -> None:
        writer.write(tf.Event(wall_time=time.time(), **fields).SerializeToString())
        writer.flush()


def _tag(name: str) -> str:
    return f"{'validation' if name.startswith(_VALIDATION) else 'train'}/{name}"
