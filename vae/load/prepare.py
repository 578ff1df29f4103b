"""Preparation from start to end: read, split, store, and say what was kept and dropped."""

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
from vae.load.split import MIN_ITEMS_TO_SPLIT, SplitOptions, split_ratings
from vae.load.store import locked, prepared_folder, read_manifest, write_split
from vae.load.synthetic import generate
from vae.utils.atomic import sha256

Say = Callable[[str], None]
Sources = list[dict[str, Any]]


def tell(line: str) -> None:
    """Prints a line at once, into a pipe too."""
    print(line, flush=True)


def prepare(options: PrepareConfig, say: Say = tell) -> None:
    """Prepares a data set, unless just that is already there.

    Raises:
        UserError: the ratings file cannot be used, or the data cannot be written.
    """
    folder = prepared_folder(options.data_dir, options.dataset)
    made = options.synthetic or options.download
    # A file that does not exist is reported before anything is created.
    files = [options.default_source] if made else _files(options)
    with locked(folder):
        if options.synthetic:
            generate(options.default_source, options.scale or "demo", options.seed, say)
        elif options.download:
            download(options.dataset, options.mirror, options.default_source.parent, say)
        with ThreadPoolExecutor(max_workers=1) as pool:
            sources = pool.submit(_identified, files)
            if _is_prepared(folder, options, sources, say):
                return
            _prepare(folder, options, files, sources, say)


def _prepare(
    folder: Path, options: PrepareConfig, files: list[Path], sources: Future[Sources], say: Say
) -> None:
    """Reads and splits while the files' digests are computed beside, then writes."""
    parameters = _parameters(options)
    columns = Columns.of(parameters)
    split = split_ratings(
        _liked(files, columns, options.threshold, say),
        SplitOptions(
            options.min_items_per_user,
            options.min_users_per_item,
            options.heldout,
            options.test_proportion,
            options.seed,
        ),
    )
    _check_something_is_ranked(split.counts, options.test_proportion)
    facts = {
        "dataset": options.dataset,
        "sources": sources.result(),
        "parameters": parameters,
    }
    write_split(folder, split, facts)
    for line in _report(split.counts, columns, options):
        say(line)
    say(f"Prepared {folder}.")


def _check_something_is_ranked(counts: Mapping[str, int], proportion: float) -> None:
    """Without a ranked item no metric is defined, and no model could be told to be the best."""
    for name in ("validation", "test"):
        if counts[f"{name}_target_interactions"] == 0:
            least = max(MIN_ITEMS_TO_SPLIT, math.ceil(1 / proportion))
            raise UserError(
                f"None of the {counts['heldout_users']} {name} users has an item to rank, which "
                f"takes {least} items that training users have too; raise --heldout_users, "
                "--min_items_per_user or --test_proportion, or lower --threshold."
            )


def _files(options: PrepareConfig) -> list[Path]:
    if options.ratings is None and not options.default_source.exists():
        raise UserError(
            f"{options.default_source}: there is no such file; fetch MovieLens with --download or "
            "name your ratings with --ratings."
        )
    return ratings_files(options.sources)


def _liked(files: list[Path], columns: Columns, threshold: float, say: Say) -> Ratings:
    """The ratings that count, at least one."""
    ratings = read_ratings(files, columns, threshold)
    if ratings.line_breaks:
        say(
            f"{ratings.line_breaks:,} line breaks are inside quoted values; if quotes are part of "
            "the values, each of them hides a row: prepare the data with --quoting none."
        )
    if not len(ratings.users.codes):
        raise UserError(
            f"{files[0]}: of {ratings.rows_read:,} rows none has a {columns.rating} of at least "
            f"{threshold:g}; give a lower --threshold."
        )
    return ratings


def _identified(files: list[Path]) -> Sources:
    """What identifies the ratings files."""
    sources = []
    for path in files:
        try:
            sources.append(
                {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
            )
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return sources


def _parameters(config: PrepareConfig) -> dict[str, Any]:
    """Everything but the sources that the prepared data depend on."""
    flags = {name: getattr(config, name) for name in flags_that_affect(PrepareConfig, "data")}
    del flags["sep"]  # as it was typed
    return flags | {"separator": config.separator, "heldout_users": config.heldout}


def _is_prepared(folder: Path, options: PrepareConfig, sources: Future[Sources], say: Say) -> bool:
    """Whether the folder holds just what is asked for; says so, or why not."""
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        say(f"Preparing again: {error}")
        return False
    if manifest is None:
        return False
    reasons = list(_differences(folder, manifest, options, sources.result()))
    if options.force:
        reasons.append("--force is given")
    if reasons:
        say(f"Preparing again: {'; '.join(reasons)}.")
        return False
    say(f"{folder} is already prepared from the same ratings with the same parameters.")
    return True


def _differences(
    folder: Path, manifest: Mapping[str, Any], options: PrepareConfig, sources: Sources
) -> Iterator[str]:
    old = manifest.get("parameters", {})
    for name, value in _parameters(options).items():
        if old.get(name) != value:
            yield f"{name} is {value!r} and was {old.get(name)!r}"
    before = [source["sha256"] for source in manifest["sources"]]
    if [source["sha256"] for source in sources] != before:
        more = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        yield f"{sources[0]['path']}{more} is not what it was last time"
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != facts["sha256"]:
            yield f"{name} is missing or damaged"


def _report(counts: Mapping[str, int], columns: Columns, options: PrepareConfig) -> Iterator[str]:
    """What was kept and dropped at each step, line by line."""
    threshold = f" with a {columns.rating} of at least {options.threshold:g}"
    yield (
        f"{counts['rows']:,} rows read, {counts['interactions']:,} kept"
        f"{threshold if columns.rating else ''}."
    )
    yield (
        f"{counts['distinct_interactions']:,} distinct (user, item) pairs; "
        f"{counts['interactions'] - counts['distinct_interactions']:,} duplicates dropped."
    )
    if options.min_users_per_item > 1:
        yield (
            f"{counts['dropped_items']:,} items with fewer than {options.min_users_per_item} "
            "users dropped."
        )
    yield (
        f"{counts['users']:,} users kept; {counts['dropped_users']:,} with fewer than "
        f"{options.min_items_per_user} items dropped."
    )
    yield (
        f"Training: {counts['train_users']:,} users, {counts['items']:,} items, "
        f"{counts['train_interactions']:,} pairs."
    )
    yield (
        f"{counts['heldout_interactions_dropped']:,} pairs of held-out users dropped, "
        "whose items training never saw."
    )
    for name in ("validation", "test"):
        yield (
            f"{name.capitalize()}: {counts['heldout_users']:,} users, "
            f"{counts[f'{name}_fold_in_interactions']:,} pairs to fold in, "
            f"{counts[f'{name}_target_interactions']:,} to rank; "
            f"{counts[f'{name}_users_without_targets']:,} users have nothing to rank."
        )
