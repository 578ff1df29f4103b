"""Tables in CSV or Parquet files, written batch by batch and complete or absent.

Raises:
    UserError: a file cannot be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from vae.load.histories import UserHistories
from vae.load.item_filters import ItemFilters
from vae.recommend.recommender import Recommender
from vae.recommend.scores import Pairs
from vae.utils.atomic import temporary_file
from vae.utils.outputs import report_write_errors
from vae.utils.run_log import RunLog


def write_recommendations(
    path: Path,
    recommender: Recommender,
    users: UserHistories,
    filters: ItemFilters,
    k: int,
    explain: int,
    log: RunLog,
) -> dict[str, float]:
    """Write recommendations, ``k`` per user with ``explain`` history items each, in raw ids.

    Returns:
        Number of users, number of cold-start users, users per second and, with filters, number of
        users with an empty list, by their log keys.
    """
    start = time.perf_counter()
    table = recommender.table(explain > 0)
    if renamed := [f"{name} as {new}" for name, new in table.added.items() if new != name]:
        log.say(f"Columns renamed because the ratings file uses their names: {', '.join(renamed)}.")
    log.say(f"Precision of inference: {recommender.precision(explain > 0).description}.")
    empty_users = users.users
    what = "Recommending and explaining" if explain else "Recommending"
    with (
        log.progress(what, users.users) as bar,
        table_writer("--output", path, table.schema(users.user_ids)) as write,
    ):
        batches = recommender.batches(users, k, filters, explain, bar.update)
        for number, rows in enumerate(batches):
            empty_users -= int((rows[table.added["rank"]] == 1).sum())
            if number == 0:
                log.say(table.examples(rows))
            write(rows)
    summary = {
        "recommend_users": users.users,
        "recommend_popular_users": int((np.diff(users.liked.indptr) == 0).sum()),
        "recommend_throughput": users.users / (time.perf_counter() - start),
    }
    log.say(f"Recommendations for {users.users:,} users: {path}")
    if filters.are_given:
        log.say(f"Users to whom nothing is left to recommend: {empty_users:,}.")
        summary["recommend_empty_users"] = empty_users
    return summary


def write_scores(
    path: Path, recommender: Recommender, pairs: Pairs, users: UserHistories, log: RunLog
) -> dict[str, float]:
    """Write the scores of pairs of a user and an item, in their order.

    The users are the histories that the pairs were read with.

    Returns:
        Numbers of pairs and of those without a score, by their log keys.
    """
    log.say(f"Precision of inference: {recommender.precision(False).description}.")
    is_known = pairs.is_known
    with log.progress("Scoring", len(np.unique(pairs.users[is_known]))) as bar:
        frame = recommender.score_pairs(pairs, users, bar.update)
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    with table_writer("--output", path, rows.schema) as write:
        write(rows)
    log.say(f"Scores of {len(pairs):,} users and items: {path}")
    return {"score_pairs": len(pairs), "score_unknown_pairs": (~is_known).sum()}


def write_item_vectors(path: Path, recommender: Recommender, log: RunLog) -> None:
    """Write a row for each item: raw ``id``, ``title`` if there are titles, ``vector``, ``bias``.

    A vector is a list of D float32, the item's column of the decoder's last kernel.
    ``--similar_items`` compares just these, by cosine.
    """
    vectors = recommender.item_vectors()
    columns = {"id": pa.array(recommender.dataset.item_ids)}
    if recommender.titles is not None:
        columns["title"] = pa.array(recommender.titles, pa.string(), from_pandas=True)
    columns |= {"vector": _lists(vectors.T), "bias": pa.array(recommender.item_biases())}
    table = pa.table(columns)
    with table_writer("--export_items", path, table.schema) as write:
        write(table)
    log.say(f"Item vectors: {vectors.shape[1]:,} items of {len(vectors)} dimensions: {path}")


def write_user_vectors(
    path: Path, recommender: Recommender, users: UserHistories, log: RunLog
) -> None:
    """Write a row for each user: raw ``id`` and ``vector``, the latent mean of Z float32."""
    dimensions, first = recommender.model.architecture.latent_dim, 0
    ids = pa.array(users.user_ids)
    schema = pa.schema({"id": ids.type, "vector": pa.list_(pa.float32(), dimensions)})
    with (
        log.progress("Encoding", users.users) as bar,
        table_writer("--export_users", path, schema) as write,
    ):
        for vectors in recommender.user_vectors(users, bar.update):
            write(pa.table([ids[first : first + len(vectors)], _lists(vectors)], schema=schema))
            first += len(vectors)
    log.say(f"User vectors: {users.users:,} users of {dimensions} dimensions: {path}")
    if empty := (np.diff(users.liked.indptr) == 0).sum():
        log.say(f"Users without a known item, who all have the same vector: {empty:,}.")


def _lists(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Return the rows of a matrix as a column."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


@contextmanager
def table_writer(
    flag: str, path: Path, schema: pa.Schema
) -> Iterator[Callable[[pd.DataFrame | pa.Table], None]]:
    """Yield a function that appends the rows of a table to a file.

    A thread writes while the caller computes the next table; at most one waits. Arrow writes, since
    ``DataFrame.to_csv`` takes ten times as long: as long as the model takes to recommend.

    Args:
        flag: flag that names the file.
        path: the file; the suffix of its name chooses the format.
        schema: names and types of the columns of each table.
    """
    with report_write_errors(f"{flag} {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            with ThreadPoolExecutor(max_workers=1) as thread, _open(temporary, schema) as writer:
                pending: list[Future[None]] = []

                def write(rows: pd.DataFrame | pa.Table) -> None:
                    if pending:
                        pending.pop().result()
                    if not isinstance(rows, pa.Table):
                        rows = pa.Table.from_pandas(rows, schema, preserve_index=False)
                    pending.append(thread.submit(writer.write_table, rows))

                yield write
                if pending:
                    pending.pop().result()
            temporary.replace(path)


@contextmanager
def _open(path: Path, schema: pa.Schema) -> Iterator[pa_csv.CSVWriter | pa_parquet.ParquetWriter]:
    """Open a writer of the format that the suffix of the file's name stands for."""
    # Python opens the file: Arrow takes no name that is not UTF-8.
    with path.open("wb") as file:
        if path.suffix == ".parquet":
            with pa_parquet.ParquetWriter(file, schema) as writer:
                yield writer
            return
        compression = "gzip" if path.suffix == ".gz" else None
        options = pa_csv.WriteOptions(delimiter="\t" if ".tsv" in path.suffixes else ",")
        with (
            pa.output_stream(file, compression) as stream,
            pa_csv.CSVWriter(stream, schema, write_options=options) as writer,
        ):
            yield writer
