"""Synthetic ratings in MovieLens' format, with tastes that a model can learn.

Items belong to clusters of taste and have a long-tailed popularity; a user draws most of his items
from a few favourite clusters and rates those higher. Recommending what is popular therefore works a
little, and knowing a user's clusters works far better.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.errors import UserError
from vae.utils.atomic import read_text, temporary_file, write_whole

GENERATOR_VERSION = 1

_BLOCK_USERS = 16_384
_FIRST_TIMESTAMP, _LAST_TIMESTAMP = 789_652_009, 1_427_784_002


@dataclass(frozen=True)
class Population:
    """A synthetic world.

    Attributes:
        users: how many.
        items: how many.
        clusters: of taste.
        mean_rows: ratings a user draws on average, before repeated items are dropped.
        min_rows: ratings a user draws at least.
        favourites: clusters that a user prefers.
        loyalty: share of a user's ratings that come from those.
        popularity_offset: in items; larger makes the most popular items less exceptional.
        popularity_exponent: larger makes the tail thinner.
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
}


def generate(path: Path, scale: str, seed: int, say: Callable[[str], None]) -> None:
    """Writes the ratings of a population, unless the file already holds just those.

    ``movies.csv`` beside it gives each item a title that tells its cluster.

    Args:
        path: CSV file with the columns userId, movieId, rating and timestamp.
        scale: a key of ``POPULATIONS``.
        seed: of everything random.
        say: where to tell what was done.

    Raises:
        UserError: the file cannot be written.
    """
    population = POPULATIONS[scale]
    recipe = {"generator": GENERATOR_VERSION, "seed": seed, **asdict(population)}
    note = path.with_suffix(".json")
    titles = path.with_name("movies.csv")
    if path.is_file() and titles.is_file() and _read_note(note) == recipe:
        say(f"{path} is already generated.")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        with temporary_file(path) as ratings, temporary_file(titles) as movies:
            rows = _write(ratings, movies, population, seed)
            movies.replace(titles)
            ratings.replace(path)
        write_whole(note, json.dumps(recipe, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).", exit_code=1) from None
    say(f"Generated {path}: {rows:,} ratings of {population.users:,} users.")


def _read_note(note: Path) -> Any:
    """What the last generation noted, None where that cannot be told."""
    try:
        return json.loads(read_text(note))
    except (OSError, ValueError):
        return None


def _write(path: Path, titles: Path, population: Population, seed: int) -> int:
    """Writes the ratings block of users by block, and titles; returns the number of ratings."""
    rng = np.random.default_rng([seed, GENERATOR_VERSION])
    world = _World(population, rng)
    pa_csv.write_csv(world.titles(), titles)
    user_ids = np.cumsum(rng.integers(1, 4, population.users))
    rows = 0
    with path.open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for first in range(0, population.users, _BLOCK_USERS):
            block = world.ratings(user_ids[first : first + _BLOCK_USERS], rng)
            pa_csv.write_csv(
                block, file, pa_csv.WriteOptions(include_header=False, quoting_style="none")
            )
            rows += block.num_rows
    return rows


class _World:
    """The items: clusters, popularity and ids."""

    _HALF_STARS = pa.array([f"{half / 2:.1f}" for half in range(11)])

    def __init__(self, population: Population, rng: np.random.Generator) -> None:
        self._population = population
        items = population.items
        rank = rng.permutation(items)
        weight = (rank + population.popularity_offset) ** -population.popularity_exponent
        # Items lie cluster by cluster, so a cluster is an interval of the cumulated popularity.
        self._cluster_ends = np.sort(rng.choice(items - 1, population.clusters - 1, replace=False))
        self._cluster_ends = np.append(self._cluster_ends + 1, items)
        self._cumulated = np.concatenate([[0.0], np.cumsum(weight / weight.sum())])
        self._quality = rng.normal(0, 0.3, items)
        self._item_ids = rng.choice(6 * items, items, replace=False) + 1

    def titles(self) -> pa.Table:
        """The items' titles."""
        clusters = np.searchsorted(self._cluster_ends, np.arange(len(self._item_ids)), "right")
        names = [f"Film {n + 1} of taste {cluster + 1}" for n, cluster in enumerate(clusters)]
        return pa.table({"movieId": self._item_ids, "title": names})

    def ratings(self, user_ids: NDArray[np.int64], rng: np.random.Generator) -> pa.Table:
        """The ratings of some users, as a table of the file's columns."""
        population = self._population
        users = len(user_ids)
        spread = 0.9
        mean = population.mean_rows - population.min_rows
        extra = rng.lognormal(np.log(mean) - spread**2 / 2, spread, users)
        lengths = population.min_rows + np.minimum(extra, population.items / 3).astype(np.int64)
        user = np.repeat(np.arange(users), lengths)
        item, loved = self._draw_items(user, users, rng)
        user, item, loved = _distinct(user, item, loved, population.items)

        stars = 3.35 + 0.8 * loved + self._quality[item] + rng.normal(0, 0.9, len(item))
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
        """An item for each row, and whether it was drawn from one of the user's favourites."""
        population = self._population
        favourites = rng.integers(0, population.clusters, (users, population.favourites))
        loved = rng.random(len(user)) < population.loyalty
        cluster = favourites[user, rng.integers(0, population.favourites, len(user))]
        starts = np.concatenate([[0], self._cluster_ends[:-1]])
        low = np.where(loved, self._cumulated[starts[cluster]], 0.0)
        high = np.where(loved, self._cumulated[self._cluster_ends[cluster]], 1.0)
        point = low + (high - low) * rng.random(len(user))
        item = np.searchsorted(self._cumulated, point, side="right") - 1
        return np.minimum(item, population.items - 1), loved


def _distinct(
    user: NDArray[np.int64], item: NDArray[np.int64], loved: NDArray[np.bool_], items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Each (user, item) once, ordered by user and item; loved if drawn so once."""
    keys = np.sort((user * items + item) * 2 + ~loved)
    pairs = keys >> 1
    first = np.concatenate([[True], pairs[1:] != pairs[:-1]])
    user, item = np.divmod(pairs[first], items)
    return user, item, keys[first] & 1 == 0
