"""``--export_items``: the decoder's item vectors as a Parquet file, for an index of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from vae.recommend.recommender import Recommender
from vae.utils.atomic import temporary_file
from vae.utils.outputs import report_write_errors


def export_items(path: Path, recommender: Recommender) -> str:
    """Write a row for each item: raw ``id``, ``title`` if there are titles, and ``vector``.

    A vector is a list of H float32, the item's column of the decoder's last kernel.
    ``--similar_items`` compares just these, by cosine.

    Args:
        path: the file, ``--export_items``.
        recommender: the model, its data and the titles.

    Returns:
        A sentence for the log.

    Raises:
        UserError: the file cannot be written.
    """
    vectors = recommender.item_vectors()
    flat = pa.array(np.ascontiguousarray(vectors.T).reshape(-1))
    columns = {"id": pa.array(recommender.dataset.item_ids)}
    if recommender.titles is not None:
        columns["title"] = pa.array(recommender.titles, pa.string(), from_pandas=True)
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, len(vectors))
    with report_write_errors(f"--export_items {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            with temporary.open("wb") as file:  # Arrow takes no name that is not UTF-8
                pa_parquet.write_table(pa.table(columns), file)
            temporary.replace(path)
    return f"Item vectors: {vectors.shape[1]:,} items of {len(vectors)} dimensions: {path}"
