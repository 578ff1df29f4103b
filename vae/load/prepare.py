"""Preparation of a data set: fetch, read, split, write, and print what was kept and dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vae.cli import flags_that_affect
from vae.errors import UserError
from vae.load.columns import Columns
from vae.load.config import PrepareConfig
from vae.load.movielens import download
from vae.load.ratings import Ratings, read_ratings
from vae.load.sources import ratings_files
from vae.load.split import MIN_ITEMS_TO_SPLIT, split_ratings
from vae.load.store import (
    FileDigest,
    Manifest,
    Provenance,
    locked,
    prepared_folder,
    read_manifest,
    write_split,
)
from vae.load.synthetic import generate
from vae.utils.atomic import sha256

Log = Callable[[str], None]
"""Takes a line of output."""


def print_line(line: str) -> None:
    """Print a line at once, into a pipe too."""
    print(line, flush=True)


def prepare(config: PrepareConfig, log: Log = print_line) -> None:
    """Prepare a data set unless it is already prepared from the same ratings and flags.

    Args:
        config: the flags.
        log: takes the lines of the summary.

    Raises:
        UserError: the ratings cannot be used, or the data cannot be written.
    """
    folder = prepared_folder(config.data_dir, config.dataset)
    fetched = config.synthetic or config.download
    # A missing file is reported before anything is created.
    files = [config.default_source] if fetched else _find_files(config)
    with locked(folder):
        if config.synthetic:
            generate(config.default_source, config.scale or "demo", config.seed, log)
        elif config.download:
            download(config.dataset, config.mirror, config.default_source.parent, log)
        with ThreadPoolExecutor(max_workers=1) as pool:
            sources = pool.submit(_digests, files)
            if not _is_prepared(folder, config, sources, log):
                _prepare(folder, config, files, sources, log)


def _prepare(
    folder: Path,
    config: PrepareConfig,
    files: list[Path],
    sources: Future[list[FileDigest]],
    log: Log,
) -> None:
    """Read and split while a thread computes the files' digests, then write."""
    columns = config.columns
    split = split_ratings(_read(files, columns, config.threshold, log), config.split)
    _check_targets(split.counts, config.test_proportion)
    provenance = Provenance(sources.result(), columns, config.threshold, _data_flags(config))
    write_split(folder, split, provenance)
    for line in _summary(split.counts, config):
        log(line)
    log(f"Prepared {folder}.")


def _check_targets(counts: Mapping[str, int], proportion: float) -> None:
    """Refuse a split without targets: no metric and no best checkpoint would be defined."""
    for name in ("validation", "test"):
        if counts[f"{name}_target_interactions"] == 0:
            min_items = max(MIN_ITEMS_TO_SPLIT, math.ceil(1 / proportion))
            raise UserError(
                f"no {name} user has a held-out target; a user needs at least {min_items} items "
                "seen in training; raise --heldout_users, --min_items_per_user or "
                "--test_proportion, or lower --threshold."
            )


def _find_files(config: PrepareConfig) -> list[Path]:
    if config.ratings is None and not config.default_source.exists():
        raise UserError(
            f"{config.default_source}: file not found; download MovieLens with --download or pass "
            "your ratings with --ratings."
        )
    return ratings_files(config.sources)


def _read(files: list[Path], columns: Columns, threshold: float, log: Log) -> Ratings:
    """Return the interactions, at least one."""
    ratings = read_ratings(files, columns, threshold)
    if ratings.line_breaks:
        log(
            f"{ratings.line_breaks:,} line breaks are inside quoted values; if quotes are part of "
            "the values, each of them hides a row: prepare the data with --quoting none."
        )
    if not len(ratings.users.codes):
        raise UserError(
            f"{files[0]}: none of {ratings.rows_read:,} rows has a {columns.rating} of at least "
            f"{threshold:g}; lower --threshold."
        )
    return ratings


def _digests(files: list[Path]) -> list[FileDigest]:
    digests = []
    for path in files:
        try:
            digests.append(FileDigest.of(path, str(path)))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return digests


def _data_flags(config: PrepareConfig) -> dict[str, Any]:
    """Return the flags that the prepared data depend on, with the values that take effect."""
    flags = {name: getattr(config, name) for name in flags_that_affect(PrepareConfig, "data")}
    effective = {"sep": config.columns.separator, "heldout_users": config.split.heldout_users}
    return flags | effective


def _is_prepared(
    folder: Path, config: PrepareConfig, sources: Future[list[FileDigest]], log: Log
) -> bool:
    """Return whether the folder holds just these data; log that, or why not."""
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        log(f"Preparing again: {error}")
        return False
    if manifest is None:
        return False
    reasons = list(_changes(folder, manifest, config, sources.result()))
    if config.force:
        reasons.append("--force is set")
    if reasons:
        log(f"Preparing again: {'; '.join(reasons)}.")
        return False
    log(f"{folder} is already prepared from the same ratings with the same parameters.")
    return True


def _changes(
    folder: Path, manifest: Manifest, config: PrepareConfig, sources: list[FileDigest]
) -> Iterator[str]:
    """Yield what differs from the last preparation."""
    before = manifest.provenance
    for name, value in _data_flags(config).items():
        if before.flags.get(name) != value:
            yield f"--{name} changed from {before.flags.get(name)!r} to {value!r}"
    if [source.sha256 for source in sources] != [source.sha256 for source in before.sources]:
        more = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        yield f"{sources[0].path}{more} has changed since it was last prepared"
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or sha256(path) != file.sha256:
            yield f"{file.path} is missing or damaged"


def _summary(counts: Mapping[str, int], config: PrepareConfig) -> Iterator[str]:
    """Yield what was kept and dropped at each step, line by line."""
    rating = config.columns.rating
    threshold = f" with a {rating} of at least {config.threshold:g}" if rating else ""
    yield f"{counts['rows']:,} rows read, {counts['interactions']:,} kept{threshold}."
    yield (
        f"{counts['distinct_interactions']:,} distinct interactions; "
        f"{counts['interactions'] - counts['distinct_interactions']:,} duplicates dropped."
    )
    if config.min_users_per_item > 1:
        yield (
            f"{counts['dropped_items']:,} items with fewer than {config.min_users_per_item} "
            "users dropped."
        )
    yield (
        f"{counts['users']:,} users kept; {counts['dropped_users']:,} with fewer than "
        f"{config.min_items_per_user} items dropped."
    )
    yield (
        f"Training: {counts['train_users']:,} users, {counts['items']:,} items, "
        f"{counts['train_interactions']:,} interactions."
    )
    yield (
        f"{counts['heldout_interactions_dropped']:,} held-out interactions dropped: item not in "
        "the training set."
    )
    for name in ("validation", "test"):
        yield (
            f"{name.capitalize()}: {counts['heldout_users']:,} users, "
            f"{counts[f'{name}_fold_in_interactions']:,} fold-in items, "
            f"{counts[f'{name}_target_interactions']:,} targets; "
            f"{counts[f'{name}_users_without_targets']:,} users without targets."
        )
