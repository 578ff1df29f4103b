"""Preparation from start to end: read, split, store, and say what was kept and dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vae.load.options import PrepareOptions
from vae.load.ratings import Columns, read_ratings
from vae.load.split import SplitOptions, split_ratings
from vae.load.store import (
    locked,
    prepared_folder,
    read_manifest,
    sha256,
    write_split,
)
from vae.load.synthetic import generate
from vae.errors import UserError

Say = Callable[[str], None]


def prepare(options: PrepareOptions, say: Say = print) -> None:
    """Prepares a data set, unless just that is already there.

    Raises:
        UserError: the ratings file cannot be used, or the data cannot be written.
    """
    folder = prepared_folder(options.data_dir, options.dataset)
    with locked(folder):
        if options.synthetic:
            generate(options.ratings_file, options.scale or "demo", options.seed, say)
        parameters = _parameters(options)
        with ThreadPoolExecutor(max_workers=1) as pool:
            digest = pool.submit(_source, options)
            if not options.force and _is_prepared(folder, parameters, digest.result, say):
                return
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
            facts = {"dataset": options.dataset, "source": digest.result(), "parameters": parameters}
        write_split(folder, split, facts)
    for line in _report(split.counts, options):
        say(line)
    say(f"Prepared {folder}.")
