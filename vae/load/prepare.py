"""Preparation of a data set: fetch, read, split, write, and print what was kept and dropped.

Raises:
    UserError: the ratings cannot be used, or the data cannot be written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vae.cli import changed_values, defaults, flags_text, flags_that_affect
from vae.errors import UserError
from vae.load import store
from vae.load.config import LAST, PrepareConfig
from vae.load.dataset import Split
from vae.load.extend import extend
from vae.load.movielens import obtain
from vae.load.published_split import find_parts, published_split
from vae.load.reading.files import Source, find_sources, reading
from vae.load.reading.interactions import Interactions, lists_in, read_interactions
from vae.load.rejects import write_rejects
from vae.load.split import MIN_ITEMS_TO_SPLIT, split_interactions
from vae.load.synthetic import generate
from vae.utils.atomic import sha256
from vae.utils.console import progress
from vae.utils.outputs import check_file

_MIN_ITEMS_TO_WARN = 20
_MAX_NAMED_USERS = 3

log = partial(print, flush=True)
"""Prints a line at once, into a pipe too."""

T = TypeVar("T")


def prepare(config: PrepareConfig) -> None:
    """Prepare a data set unless it is already prepared from the same ratings and flags."""
    folder = store.prepared_folder(config.data_dir, config.dataset)
    fetched = config.synthetic or config.download or config.archive is not None
    if config.rejects is not None:
        check_file(config.rejects, "--rejects")
    if config.extend is not None:
        store.require_manifest(config.data_dir, config.dataset)
    # A missing file is reported before anything is created.
    sources = [Source(config.default_source)] if fetched else _find_sources(config)
    with store.locked(folder):
        if config.synthetic:
            generate(config.default_source, config.scale or "demo", config.seed, log)
        elif fetched:
            target = config.default_source.parent
            obtain(config.dataset, config.archive, config.mirror, target, log)
        # Pipes can be read once only: they have no digest and are never known to be the same.
        versions = _of_each((one.path for one in sources if not one.is_pipe), _version)
        with ThreadPoolExecutor(max_workers=1) as pool:  # digests while the files are read
            digests = pool.submit(_of_each, versions, sha256)
            if config.extend is None and _is_prepared(folder, config, sources, digests):
                return
            split, provenance = (_split if config.extend is None else _extend)(config, sources)
            files = {str(path): digest for path, digest in digests.result().items()}
        for path, version in _of_each(versions, _version).items():
            if version != versions[path]:
                raise UserError(f"{path}: changed while it was read; run the same command again.")
        if provenance is None:
            log(f"{folder}: unchanged; the ratings add nothing.")
            return
        provenance = replace(provenance, sources=provenance.sources | files)
        with progress("Writing", 1, "data sets"):
            store.write_split(folder, split, provenance)
        _log_sizes(split, provenance.flags)
        _warn_of_users_of_most_items(split)
        log(f"Prepared {folder}.")


def _split(config: PrepareConfig, sources: list[Source]) -> tuple[Split, store.Provenance]:
    """Return a new split and what it was made from, but for the sources."""
    interactions = _read(sources, config)
    try:
        with progress("Splitting", 1, "data sets"):
            if config.split_dir is not None:
                split = published_split(interactions, config.split_dir)
            else:
                split = split_interactions(interactions, config.split)
        _check_targets(split.counts, config)
    except UserError as error:
        if lists := lists_in(interactions, config.columns, must_be_rare=False):
            raise UserError(f"{sources[0].path}: {lists} If it has not, {error}") from None
        raise
    if lists := lists_in(interactions, config.columns, must_be_rare=True):
        log(f"Warning: {lists}")
    _log_summary(split.counts, config)
    return split, store.Provenance({}, config.columns, config.threshold, _data_flags(config))


def _extend(config: PrepareConfig, sources: list[Source]) -> tuple[Split, store.Provenance | None]:
    """Return a split that has grown by the interactions of files; no provenance if it has not."""
    manifest = store.require_manifest(config.data_dir, config.dataset)
    data, before = store.open_dataset(config.data_dir, config.dataset), manifest.provenance
    config = _as_before(config, before.flags)
    kept = {n: v for n, v in changed_values(config).items() if n in _data_flags(config)}
    log(f"Extending with the settings of {config.dataset}: {flags_text(kept)}.")
    path = store.prepared_folder(config.data_dir, config.dataset) / manifest.folder / store.WAITING
    waiting = _waiting(path, config)
    interactions = _read([Source(path, table=waiting), *sources], config)
    with progress("Splitting", 1, "data sets"):
        split = extend(data, interactions, config.split, config.extend == "heldout")
    counts = split.counts
    n = {name: f"{count:,}" for name, count in counts.items()}
    log(
        f"{interactions.rows_read - len(waiting):,} rows read, {n['new_interactions']} new "
        f"training interactions, {n['new_users']} new users, {n['new_items']} new items.\n"
        f"{n['new_interactions_of_heldout_users']} new interactions of held-out users dropped: "
        "they keep their fold-in items and targets.\n"
        f"{n['waiting_interactions']} interactions wait until their user or item has more."
    )
    is_same = counts["waiting_interactions"] == len(waiting) and not counts["new_users"]
    if is_same and not counts["new_interactions"]:
        return split, None
    return split, replace(before, grew_from=before.grew_from | {data.fingerprint: data.train.nnz})


def _as_before(config: PrepareConfig, before: Mapping[str, Any]) -> PrepareConfig:
    """Return the flags with those that the prepared data depend on, which no flag contradicts."""
    before, now = {**defaults(PrepareConfig), **before}, _data_flags(config)
    for name in sorted(config.given & now.keys()):
        if now[name] != before[name]:
            raise UserError(
                f"--{name} {now[name]}: {config.dataset} was prepared with {before[name]}, which "
                "--extend keeps; leave the flag out, or prepare all ratings again."
            )
    if config.rejects is not None and not before["drop_missing"]:
        raise UserError(
            f"--rejects {config.rejects}: {config.dataset} was prepared without --drop_missing, "
            "so no row is dropped; leave --rejects out."
        )
    return replace(config, **{name: before[name] for name in now})


def _waiting(path: Path, config: PrepareConfig) -> pa.Table:
    """Return the interactions that wait, as ratings like those of the files."""
    columns = config.columns
    names = [name for name in (columns.user, columns.item, config.time_col) if name is not None]
    table = pa.table({name: [] for name in names})
    if path.exists():  # unless the data are a published split
        with path.open("rb") as file:
            table = pq.read_table(file).rename_columns(names)
    if columns.rating is not None:
        ratings = np.full(len(table), config.threshold)
        table = table.append_column(columns.rating, pa.array(ratings))
    return table


def _check_targets(counts: Mapping[str, int], config: PrepareConfig) -> None:
    """Refuse a split without targets: no metric and no best checkpoint would be defined."""
    for name in ("validation", "test"):
        if counts[f"{name}_target_interactions"] == 0:
            min_items = max(MIN_ITEMS_TO_SPLIT, math.ceil(1 / config.test_proportion))
            lower = ", or lower --threshold" if config.columns.rating else ""
            after = ""
            if config.split_time is not None:
                unit = "in the unit of the times (a date is in seconds since 1970)"
                after = f", and targets after {config.split_time}, {unit}"
            raise UserError(
                f"no {name} user has a held-out target; a user needs at least {min_items} items "
                f"seen in training{after}; raise --heldout_users, --min_items_per_user or "
                f"--test_proportion{lower}."
            )


def _find_sources(config: PrepareConfig) -> list[Source]:
    paths: Sequence[Path] = config.ratings or [config.default_source]
    if config.split_dir is not None:
        paths = find_parts(config.split_dir)
    elif config.ratings is None and not paths[0].exists():
        fix = "download MovieLens with --download or pass your ratings with --ratings"
        raise UserError(f"{paths[0]}: file not found; {fix}.")
    sources, notes = find_sources(paths)
    for note in notes:
        log(note)
    return sources


def _read(sources: list[Source], config: PrepareConfig) -> Interactions:
    """Return the interactions, at least one."""
    with progress("Reading the ratings", None, "rows") as bar:
        columns, threshold, time = config.columns, config.threshold, config.time_col
        interactions = read_interactions(
            sources, columns, threshold, time_column=time, advance=bar.update
        )
    for note in interactions.notes:
        log(note)
    if config.rejects is not None:
        log(write_rejects(config.rejects, interactions.rejects, interactions.rows_missing))
    if not len(interactions.users.codes) and config.extend is None:
        rows = interactions.rows_read - interactions.rows_missing
        raise UserError(
            f"{sources[0].path}: none of {rows:,} rows has a {config.rating_col} of at least "
            f"{config.threshold:g}; lower --threshold."
        )
    return interactions


def _of_each(paths: Iterable[Path], value: Callable[[Path], T]) -> dict[Path, T]:
    """Return a value of each file."""
    values = {}
    for path in paths:
        with reading(path):
            values[path] = value(path)
    return values


def _version(path: Path) -> tuple[int, ...]:
    """Return inode, size and time: what changes if a file is replaced or written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _data_flags(config: PrepareConfig) -> dict[str, Any]:
    """Return the flags that the prepared data depend on, with the values that take effect."""
    flags = {name: getattr(config, name) for name in flags_that_affect(PrepareConfig, "data")}
    columns = config.columns
    return flags | {
        "user_col": columns.user,
        "item_col": columns.item,
        "rating_col": columns.rating or "none",
        "sep": columns.separator,
        "heldout_users": None if config.split_dir else config.split.heldout_users,
    }


def _is_prepared(
    folder: Path, config: PrepareConfig, sources: list[Source], digests: Future[dict[Path, str]]
) -> bool:
    """Return whether the folder holds just these data; log that, or why not."""
    try:
        manifest = store.read_manifest(folder)
    except UserError as error:
        log(f"Preparing again: {error}")
        return False
    if manifest is None:
        return False
    reasons = list(_changes(folder, manifest, config, digests.result()))
    reasons += [f"{source.path} is a pipe" for source in sources if source.is_pipe]
    reasons += [f"--{name} is set" for name in ("force", "rejects") if getattr(config, name)]
    same = f"{folder} is already prepared from the same ratings with the same parameters."
    log(f"Preparing again: {'; '.join(reasons)}." if reasons else same)
    return not reasons


def _changes(
    folder: Path, manifest: store.Manifest, config: PrepareConfig, sources: Mapping[Path, str]
) -> Iterator[str]:
    """Yield what differs from the last preparation."""
    before = manifest.provenance
    # A flag that was added later had the effect of its default.
    flags = defaults(PrepareConfig) | before.flags
    for name, value in _data_flags(config).items():
        if flags[name] != value:
            yield f"--{name} changed from {flags[name]!r} to {value!r}"
    if before.grew_from:
        yield "it was extended"
    elif sources and [*sources.values()] != [*before.sources.values()]:
        more = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        yield f"{next(iter(sources))}{more} has changed since it was last prepared"
    yield from store.damage(folder, manifest)


def _log_summary(counts: Mapping[str, int], config: PrepareConfig) -> None:
    """Log what was kept and dropped at each step, line by line."""
    n = {name: f"{count:,}" for name, count in counts.items()}
    rating = config.columns.rating
    kept = f"kept with a {rating} of at least {config.threshold:g}" if rating else "kept"
    log(f"{n['rows']} rows read, {n['interactions']} {kept}.")
    if counts["rows_missing"]:
        log(f"{n['rows_missing']} rows with a missing value dropped.")
    duplicates = counts["interactions"] - counts["distinct_interactions"]
    log(f"{n['distinct_interactions']} distinct interactions; {duplicates:,} duplicates dropped.")
    if config.min_users_per_item > 1:
        fewer = f"fewer than {config.min_users_per_item} users"
        log(f"{n['dropped_items']} items with {fewer} dropped.")
    if config.split_dir is None:
        fewer = f"fewer than {config.min_items_per_user} items"
        log(f"{n['users']} users kept; {n['dropped_users']} with {fewer} dropped.")
    if config.split_time is not None:
        log(
            f"{n['train_interactions_after_split_time']} interactions of training users after "
            f"{config.split_time} dropped, and {n['train_users_after_split_time']} users without "
            "an earlier one."
        )


def _log_sizes(split: Split, flags: Mapping[str, Any]) -> None:
    """Log what training and the held-out sets have."""
    n = {name: f"{count:,}" for name, count in split.counts.items()}
    size = f"{n['train_users']} users, {n['items']} items"
    log(f"Training: {size}, {n['train_interactions']} interactions.")
    dropped = n["heldout_interactions_dropped"]
    log(f"{dropped} held-out interactions dropped: item not in the training set.")
    if flags.get("targets") == LAST:
        log(f"Targets: each held-out user's last items by {flags['time_col']}.")
    for name, part in zip(("validation", "test"), split.held_out, strict=True):
        log(
            f"{name.capitalize()}: {len(part.user_ids):,} users, "
            f"{n[f'{name}_fold_in_interactions']} fold-in items, "
            f"{n[f'{name}_target_interactions']} targets; "
            f"{n[f'{name}_users_without_targets']} users without targets."
        )


def _warn_of_users_of_most_items(split: Split) -> None:
    """Warn of users with so many items that their id may stand for missing users."""
    held_out = [np.diff(part.fold_in.indptr + part.targets.indptr) for part in split.held_out]
    items = np.concatenate([np.diff(split.train.indptr), *held_out])
    catalogue = len(split.item_ids)
    users = np.argsort(-items, kind="stable")[: np.count_nonzero(2 * items > catalogue)]
    if catalogue < _MIN_ITEMS_TO_WARN or not len(users):
        return
    ids = split.all_user_ids()
    named = ", ".join(
        f"{ids[user].item()!r} ({items[user]:,})" for user in users[:_MAX_NAMED_USERS]
    )
    more = ", ..." if len(users) > _MAX_NAMED_USERS else ""
    has = "user has" if len(users) == 1 else "users have"
    log(
        f"Warning: {len(users):,} {has} more than half of the {catalogue:,} items: {named}{more}; "
        "if such an id stands for missing users, remove its rows."
    )
