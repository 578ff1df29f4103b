"""Preparation of a data set: fetch, read, split, write, and print what was kept and dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vae.cli import defaults, flags_that_affect
from vae.errors import UserError
from vae.load.config import LAST, PrepareConfig
from vae.load.dataset import Split
from vae.load.movielens import download, unpack
from vae.load.reading.files import Source, find_sources, reading
from vae.load.reading.interactions import Interactions, lists_in, read_interactions
from vae.load.split import MIN_ITEMS_TO_SPLIT, split_interactions
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
from vae.utils.console import progress

_MIN_ITEMS_TO_WARN = 20
_MAX_NAMED_USERS = 3

Log = Callable[[str], None]
"""Takes a line of output."""

Version = tuple[int, int, int]
"""Inode, size and time of the last change of a file."""


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
    fetched = config.synthetic or config.download or config.archive is not None
    # A missing file is reported before anything is created.
    sources = [Source(config.default_source)] if fetched else _find_sources(config, log)
    with locked(folder):
        if config.synthetic:
            generate(config.default_source, config.scale or "demo", config.seed, log)
        elif config.download:
            download(config.dataset, config.mirror, config.default_source.parent, log)
        elif config.archive is not None:
            unpack(config.dataset, config.archive, config.default_source.parent, log)
        with ThreadPoolExecutor(max_workers=1) as pool:
            versions = _versions(sources)
            digests = pool.submit(_digests, sources)
            if not _is_prepared(folder, config, sources, digests, log):
                _prepare(folder, config, sources, versions, digests, log)


def _prepare(
    folder: Path,
    config: PrepareConfig,
    sources: list[Source],
    versions: dict[Path, Version],
    digests: Future[list[FileDigest]],
    log: Log,
) -> None:
    """Read and split while a thread computes the files' digests, then write."""
    columns = config.columns
    found = _read(sources, config, log)
    try:
        with progress("Splitting", 1, "data sets"):
            split = split_interactions(found, config.split)
        _check_targets(split.counts, config)
    except UserError as error:
        if lists := lists_in(found, columns, must_be_rare=False):
            raise UserError(f"{sources[0].path}: {lists} If it has not, {error}") from None
        raise
    if lists := lists_in(found, columns, must_be_rare=True):
        log(f"Warning: {lists}")
    provenance = Provenance(digests.result(), columns, config.threshold, _data_flags(config))
    for path, version in _versions(sources).items():
        if version != versions[path]:
            raise UserError(f"{path}: changed while it was read; run the same command again.")
    with progress("Writing", 1, "data sets"):
        write_split(folder, split, provenance)
    for line in (*_summary(split.counts, config), *_users_of_most_items(split)):
        log(line)
    log(f"Prepared {folder}.")


def _check_targets(counts: Mapping[str, int], config: PrepareConfig) -> None:
    """Refuse a split without targets: no metric and no best checkpoint would be defined."""
    for name in ("validation", "test"):
        if counts[f"{name}_target_interactions"] == 0:
            min_items = max(MIN_ITEMS_TO_SPLIT, math.ceil(1 / config.test_proportion))
            after = lower = ""
            if config.split_time:
                after = (
                    f", and targets after {config.split_time}, in the unit of the times (a date is "
                    "in seconds since 1970)"
                )
            if config.columns.rating:
                lower = ", or lower --threshold"
            raise UserError(
                f"no {name} user has a held-out target; a user needs at least {min_items} items "
                f"seen in training{after}; raise --heldout_users, --min_items_per_user or "
                f"--test_proportion{lower}."
            )


def _find_sources(config: PrepareConfig, log: Log) -> list[Source]:
    if config.ratings is None and not config.default_source.exists():
        raise UserError(
            f"{config.default_source}: file not found; download MovieLens with --download or pass "
            "your ratings with --ratings."
        )
    sources, notes = find_sources(config.sources)
    for note in notes:
        log(note)
    return sources


def _read(sources: list[Source], config: PrepareConfig, log: Log) -> Interactions:
    """Return the interactions, at least one."""
    with progress("Reading the ratings", None, "rows") as bar:
        found = read_interactions(
            sources,
            config.columns,
            config.threshold,
            time_column=config.time_col,
            advance=bar.update,
        )
    for note in found.notes:
        log(note)
    if not len(found.users.codes):
        rows = found.rows_read - found.rows_missing
        raise UserError(
            f"{sources[0].path}: none of {rows:,} rows has a {config.rating_col} of at least "
            f"{config.threshold:g}; lower --threshold."
        )
    return found


def _digests(sources: list[Source]) -> list[FileDigest]:
    """Return the digests of the files that can be read again."""
    digests = []
    for source in sources:
        with reading(source.path):
            if not source.is_pipe:
                digests.append(FileDigest.of(source.path, str(source.path)))
    return digests


def _versions(sources: list[Source]) -> dict[Path, Version]:
    """Return what changes if a file that can be read again is replaced or written to."""
    versions = {}
    for source in sources:
        with reading(source.path):
            if not source.is_pipe:
                status = source.path.stat()
                version = (status.st_ino, status.st_size, status.st_mtime_ns)
                versions[source.path] = version
    return versions


def _data_flags(config: PrepareConfig) -> dict[str, Any]:
    """Return the flags that the prepared data depend on, with the values that take effect."""
    flags = {name: getattr(config, name) for name in flags_that_affect(PrepareConfig, "data")}
    effective = {"sep": config.columns.separator, "heldout_users": config.split.heldout_users}
    return flags | effective


def _is_prepared(
    folder: Path,
    config: PrepareConfig,
    sources: list[Source],
    digests: Future[list[FileDigest]],
    log: Log,
) -> bool:
    """Return whether the folder holds just these data; log that, or why not."""
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        log(f"Preparing again: {error}")
        return False
    if manifest is None:
        return False
    reasons = list(_changes(folder, manifest, config, digests.result()))
    reasons += [f"{source.path} is a pipe" for source in sources if source.is_pipe]
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
    # A flag that was added later had the effect of its default.
    flags = defaults(PrepareConfig) | before.flags
    for name, value in _data_flags(config).items():
        if flags[name] != value:
            yield f"--{name} changed from {flags[name]!r} to {value!r}"
    if sources and [one.sha256 for one in sources] != [one.sha256 for one in before.sources]:
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
    if counts["rows_missing"]:
        yield f"{counts['rows_missing']:,} rows with a missing value dropped."
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
    if config.split_time is not None:
        yield (
            f"{counts['train_interactions_after_split_time']:,} interactions of training users "
            f"after {config.split_time} dropped, and {counts['train_users_after_split_time']:,} "
            "users without an earlier one."
        )
    yield (
        f"Training: {counts['train_users']:,} users, {counts['items']:,} items, "
        f"{counts['train_interactions']:,} interactions."
    )
    yield (
        f"{counts['heldout_interactions_dropped']:,} held-out interactions dropped: item not in "
        "the training set."
    )
    if config.targets == LAST:
        yield f"Targets: each held-out user's last items by {config.time_col}."
    for name in ("validation", "test"):
        yield (
            f"{name.capitalize()}: {counts['heldout_users']:,} users, "
            f"{counts[f'{name}_fold_in_interactions']:,} fold-in items, "
            f"{counts[f'{name}_target_interactions']:,} targets; "
            f"{counts[f'{name}_users_without_targets']:,} users without targets."
        )


def _users_of_most_items(split: Split) -> Iterator[str]:
    """Yield a warning of users with so many items that their id may stand for missing users."""
    held_out = (split.validation, split.test)
    ids = np.concatenate([split.train_user_ids, *(part.user_ids for part in held_out)])
    matrices = [split.train, *(part.fold_in + part.targets for part in held_out)]
    items = np.concatenate([np.diff(matrix.indptr) for matrix in matrices])
    catalogue = len(split.item_ids)
    users = np.argsort(-items, kind="stable")[: np.count_nonzero(2 * items > catalogue)]
    if catalogue < _MIN_ITEMS_TO_WARN or not len(users):
        return
    named = ", ".join(
        f"{ids[user].item()!r} ({items[user]:,})" for user in users[:_MAX_NAMED_USERS]
    )
    more = ", ..." if len(users) > _MAX_NAMED_USERS else ""
    has = "user has" if len(users) == 1 else "users have"
    yield (
        f"Warning: {len(users):,} {has} more than half of the {catalogue:,} items: {named}{more}; "
        "if such an id stands for missing users, remove its rows."
    )
