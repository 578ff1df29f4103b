"""``--trace``: a timeline of one session call, for chrome://tracing or https://ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf
from tensorflow.python.client import timeline

from vae.utils.atomic import write_whole, written


def run_traced(session: tf.Session, fetches: Any, feed: dict[tf.Tensor, Any], path: Path) -> Any:
    """Runs ``fetches`` once and writes when each operation ran to ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    metadata = tf.RunMetadata()
    result = session.run(fetches, feed, options=options, run_metadata=metadata)
    trace = timeline.Timeline(metadata.step_stats).generate_chrome_trace_format()
    with written("--trace", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, trace)
    return result
