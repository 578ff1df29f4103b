"""Preparation from start to end: read, split, store, and say what was kept and dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vae.errors import UserError
from vae.load.ratings import Columns, read_ratings
from vae.load.split import SplitOptions, split_ratings
from vae.load.store import locked, prepared_folder, read_manifest, sha256, write_split
from vae.load.synthetic import generate
from vae.prepare_config import PrepareOptions

Say = Callable[[str], None]


def prepare(options: PrepareOptions, say: Say = print) -> None:
    """Prepares a data set, unless just that is already there.

    Raises:
        UserError: the ratings file cannot be used, or the data cannot be written.
    """
    folder = prepared_folder(options.data_dir, options.dataset)
    # A file that cannot be read is reported before anything is created.
    if not options.synthetic:
        _check_exists(options)
    with locked(folder):
        if options.synthetic:
            generate(options.ratings_file, options.scale or "demo", options.seed, say)
        with ThreadPoolExecutor(max_workers=1) as pool:
            source = pool.submit(_source, options.ratings_file)
            if _is_prepared(folder, options, source, say):
                return
            _prepare(folder, options, source, say)


def _prepare(
    folder: Path, options: PrepareOptions, source: Future[dict[str, Any]], say: Say
) -> None:
    """Reads and splits while the file's digest is computed beside, then writes."""
    columns = Columns(
        options.user_col,
        options.item_col,
        None if options.rating_col == "none" else options.rating_col,
        options.separator,
    )
    ratings = read_ratings(options.ratings_file, columns, options.threshold)
    split = split_ratings(
        ratings,
        SplitOptions(
            options.min_items_per_user,
            options.min_users_per_item,
            options.heldout,
            options.test_proportion,
            options.seed,
        ),
    )
    facts = {
        "dataset": options.dataset,
        "source": source.result(),
        "parameters": _parameters(options),
    }
    write_split(folder, split, facts)
    for line in _report(split.counts, columns, options):
        say(line)
    say(f"Prepared {folder}.")


def _check_exists(options: PrepareOptions) -> None:
    path = options.ratings_file
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the ratings file in it with --ratings.")
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file; put the ratings there or name the file with --ratings."
        )


def _source(path: Path) -> dict[str, Any]:
    """What identifies the ratings file."""
    try:
        return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def _parameters(options: PrepareOptions) -> dict[str, Any]:
    """Everything but the source that the prepared data depend on."""
    return {
        "user_col": options.user_col,
        "item_col": options.item_col,
        "rating_col": options.rating_col,
        "separator": options.separator,
        "threshold": options.threshold,
        "min_items_per_user": options.min_items_per_user,
        "min_users_per_item": options.min_users_per_item,
        "heldout_users": options.heldout,
        "test_proportion": options.test_proportion,
        "seed": options.seed,
    }


def _is_prepared(
    folder: Path, options: PrepareOptions, source: Future[dict[str, Any]], say: Say
) -> bool:
    """Whether the folder holds just what is asked for; says so, or why not."""
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        say(f"Preparing again: {error}")
        return False
    if manifest is None:
        return False
    reasons = list(_differences(folder, manifest, options, source.result()))
    if options.force:
        reasons.append("--force is given")
    if reasons:
        say(f"Preparing again: {'; '.join(reasons)}.")
        return False
    say(f"{folder} is already prepared from the same file with the same parameters.")
    return True


def _differences(
    folder: Path, manifest: Mapping[str, Any], options: PrepareOptions, source: Mapping[str, Any]
) -> Iterator[str]:
    old = manifest.get("parameters", {})
    for name, value in _parameters(options).items():
        if old.get(name) != value:
            yield f"{name} is {value!r} and was {old.get(name)!r}"
    if manifest.get("source", {}).get("sha256") != source["sha256"]:
        yield f"{source['path']} is not the file of last time"
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != facts["sha256"]:
            yield f"{name} is missing or damaged"


def _report(counts: Mapping[str, int], columns: Columns, options: PrepareOptions) -> Iterator[str]:
    """What was kept and dropped at each step, line by line."""
    threshold = f" with a {columns.rating} of at least {options.threshold:g}"
    yield (
        f"{counts['rows']:,} rows read, {counts['kept_rows']:,} kept"
        f"{threshold if columns.rating else ''}."
    )
    yield (
        f"{counts['pairs']:,} distinct (user, item) pairs; "
        f"{counts['kept_rows'] - counts['pairs']:,} duplicates dropped."
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
        f"{counts['train_pairs']:,} pairs."
    )
    yield (
        f"{counts['heldout_pairs_unseen_in_training']:,} pairs of held-out users dropped, "
        "whose items training never saw."
    )
    for name in ("validation", "test"):
        yield (
            f"{name.capitalize()}: {counts['heldout_users']:,} users, "
            f"{counts[f'{name}_fold_in_pairs']:,} pairs to fold in, "
            f"{counts[f'{name}_ranked_pairs']:,} to rank; "
            f"{counts[f'{name}_users_with_nothing_to_rank']:,} users have nothing to rank."
        )
