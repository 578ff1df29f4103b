"""Synthetic ratings in MovieLens' format, with preferences that a model can learn.

Items belong to clusters of taste and have a long-tailed popularity; users draw most of their items
from a few favourite clusters and rate those higher. Recommending popular items therefore works a
little, and knowing a user's clusters works far better.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.utils.atomic import read_text, temporary_file, write_atomically
from vae.utils.outputs import report_write_errors

GENERATOR_VERSION = 1

_FIRST_TIMESTAMP, _LAST_TIMESTAMP = 789_652_009, 1_427_784_002


@dataclass(frozen=True)
class Population:
    """Parameters of the generator.

    The popularity of the item of rank r is proportional to (r + offset) ** -exponent.

    Attributes:
        mean_rows: mean number of ratings per user, before repeated items are dropped.
        min_rows: least number of ratings per user, before repeated items are dropped.
        favourites: number of favourite clusters per user.
        loyalty: fraction of a user's ratings that come from the favourite clusters.
        popularity_offset: a larger one makes the most popular items less exceptional.
        popularity_exponent: a larger one makes the tail thinner.
    """

    users: int
    items: int
    clusters: int
    mean_rows: float
    min_rows: int
    favourites: int
    loyalty: float
    popularity_offset: float
    popularity_exponent: float


POPULATIONS = {
    "demo": Population(6_000, 1_200, 24, 60, 15, 2, 0.8, 20, 1.0),
    "ml-20m": Population(138_493, 20_108, 40, 221, 20, 3, 0.75, 150, 1.3),
    "wide": Population(124_000, 203_000, 400, 150, 20, 3, 0.75, 1_000, 0.9),
    "million": Population(200_000, 1_000_000, 2_000, 150, 20, 3, 0.75, 20_000, 0.7),
}


def generate(path: Path, scale: str, seed: int, log: Callable[[str], None]) -> None:
    """Write the ratings of a population unless the file already holds just those.

    ``movies.csv`` beside it has a title per item, which names the item's cluster; a JSON file, the
    parameters. ``scale`` is a key of ``POPULATIONS``.
    """
    population = POPULATIONS[scale]
    parameters = {"generator": GENERATOR_VERSION, "seed": seed, **asdict(population)}
    note, titles = path.with_suffix(".json"), path.with_name("movies.csv")
    written = None
    with suppress(OSError, ValueError):
        written = json.loads(read_text(note))
    if path.is_file() and titles.is_file() and written == parameters:
        log(f"{path} is already generated.")
        return
    with report_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        with temporary_file(path) as ratings, temporary_file(titles) as movies:
            rows = _write(ratings, movies, population, seed)
            movies.replace(titles)
            ratings.replace(path)
        write_atomically(note, json.dumps(parameters, indent=2) + "\n")
    log(f"Generated {path}: {rows:,} ratings of {population.users:,} users.")


def _write(
    path: Path, titles: Path, population: Population, seed: int, block_users: int = 16_384
) -> int:
    """Write the ratings, one block of users at a time, and titles; return the number of ratings."""
    rng = np.random.default_rng([seed, GENERATOR_VERSION])
    world = _World(population, rng)
    pa_csv.write_csv(world.titles(), titles)
    user_ids = np.cumsum(rng.integers(1, 4, population.users))
    rows = 0
    with path.open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for first in range(0, population.users, block_users):
            block = world.ratings(user_ids[first : first + block_users], rng)
            pa_csv.write_csv(
                block, file, pa_csv.WriteOptions(include_header=False, quoting_style="none")
            )
            rows += block.num_rows
    return rows


class _World:
    """The items' clusters, popularity, quality and ids."""

    _HALF_STARS = pa.array([f"{half / 2:.1f}" for half in range(11)])

    def __init__(self, population: Population, rng: np.random.Generator) -> None:
        self._population = population
        items = population.items
        rank = rng.permutation(items)
        weight = (rank + population.popularity_offset) ** -population.popularity_exponent
        # Items are ordered by cluster, so a cluster is an interval of the cumulative popularity.
        self._cluster_ends = np.sort(rng.choice(items - 1, population.clusters - 1, replace=False))
        self._cluster_ends = np.append(self._cluster_ends + 1, items)
        self._cumulative = np.concatenate([[0.0], np.cumsum(weight / weight.sum())])
        self._quality = rng.normal(0, 0.3, items)
        self._item_ids = rng.choice(6 * items, items, replace=False) + 1

    def titles(self) -> pa.Table:
        """Return a table of the columns movieId and title."""
        clusters = np.searchsorted(self._cluster_ends, np.arange(len(self._item_ids)), "right")
        names = [f"Film {n + 1} of taste {cluster + 1}" for n, cluster in enumerate(clusters)]
        return pa.table({"movieId": self._item_ids, "title": names})

    def ratings(self, user_ids: NDArray[np.int64], rng: np.random.Generator) -> pa.Table:
        """Return the ratings of some users, a table of the columns of the file."""
        population, users, spread = self._population, len(user_ids), 0.9
        mean = population.mean_rows - population.min_rows
        extra = rng.lognormal(np.log(mean) - spread**2 / 2, spread, users)
        lengths = population.min_rows + np.minimum(extra, population.items / 3).astype(np.int64)
        user = np.repeat(np.arange(users), lengths)
        item, is_favourite = self._draw_items(user, users, rng)
        user, item, is_favourite = _distinct(user, item, is_favourite, population.items)

        stars = 3.35 + 0.8 * is_favourite + self._quality[item] + rng.normal(0, 0.9, len(item))
        half_stars = np.clip(np.rint(2 * stars), 1, 10).astype(np.int8)
        timestamps = rng.integers(_FIRST_TIMESTAMP, _LAST_TIMESTAMP, len(item))
        return pa.table(
            {
                "userId": user_ids[user],
                "movieId": self._item_ids[item],
                "rating": self._HALF_STARS.take(pa.array(half_stars)),
                "timestamp": timestamps,
            }
        )

    def _draw_items(
        self, user: NDArray[np.int64], users: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Draw an item for the user in each row of a block.

        Returns:
            (rows,) item indices, and (rows,) whether they were drawn from a favourite cluster.
        """
        population = self._population
        favourites = rng.integers(0, population.clusters, (users, population.favourites))
        is_favourite = rng.random(len(user)) < population.loyalty
        cluster = favourites[user, rng.integers(0, population.favourites, len(user))]
        starts = np.concatenate([[0], self._cluster_ends[:-1]])
        low = np.where(is_favourite, self._cumulative[starts[cluster]], 0.0)
        high = np.where(is_favourite, self._cumulative[self._cluster_ends[cluster]], 1.0)
        point = low + (high - low) * rng.random(len(user))
        item = np.searchsorted(self._cumulative, point, side="right") - 1
        return np.minimum(item, population.items - 1), is_favourite


def _distinct(
    user: NDArray[np.int64], item: NDArray[np.int64], is_favourite: NDArray[np.bool_], items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return each interaction once, by user and item; a favourite if any draw was."""
    keys = np.sort((user * items + item) * 2 + ~is_favourite)
    interactions = keys >> 1
    first = np.concatenate([[True], interactions[1:] != interactions[:-1]])
    user, item = np.divmod(interactions[first], items)
    return user, item, keys[first] & 1 == 0
