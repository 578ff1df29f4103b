"""Flags of ``prepare_dataset.py``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vae.cli import flag, out_of_range, parse
from vae.errors import UserError
from vae.load.columns import MINIMAL, NONE, Columns

DATASET = "data set"
FILE = "ratings file"
SPLIT = "filter and split"

SCALES = ("demo", "ml-20m", "wide")
DOWNLOADS = ("ml-20m", "ml-1m", "ml-latest-small", "ml-25m", "ml-32m")
GROUPLENS = "https://files.grouplens.org/datasets/movielens"

_DEMO_HELDOUT_USERS = 500
_HELDOUT_USERS = 10_000


SEPARATOR = r'[\t\x20-\x7e](?<!")'
"""Pattern of a column separator: one printable ASCII character or a tab, no quote."""


@dataclass(frozen=True)
class SplitOptions:
    """How to filter and split interactions.

    Attributes:
        min_items_per_user: users with fewer items are dropped.
        min_users_per_item: items with fewer users are dropped, before the users are counted.
        heldout_users: users of the validation set, and again of the test set; below 1 a fraction of
            all users.
        test_proportion: fraction of a held-out user's items that are targets.
        seed: seed of the order of users and of the choice of targets.
    """

    min_items_per_user: int = 5
    min_users_per_item: int = 0
    heldout_users: float = _HELDOUT_USERS
    test_proportion: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class PrepareConfig:
    """The flags of ``prepare_dataset.py``.

    Raises:
        UserError: values out of range or flags that contradict each other, all named at once.
    """

    data_dir: Path = flag(DATASET, Path("/data"), "folder of the data sets")
    dataset: str = flag(
        DATASET, "ml-20m", "name of the data set; 'synthetic' is generated instead of read"
    )
    scale: str | None = flag(
        DATASET, None, "size of the synthetic data set (none: demo)", choices=SCALES
    )
    download: bool = flag(
        DATASET, False, f"first fetch the data set from GroupLens: {', '.join(DOWNLOADS)}"
    )
    mirror: str = flag(DATASET, GROUPLENS, "where --download finds DATASET.zip")
    force: bool = flag(DATASET, False, "prepare again what is already prepared")

    ratings: tuple[Path, ...] | None = flag(
        FILE,
        None,
        "CSV, TSV or Parquet files, or folders of them "
        "(none: DATA_DIR/DATASET/extracted/DATASET/ratings.csv)",
    )
    user_col: str = flag(FILE, "userId", "column of user ids", affects="data")
    item_col: str = flag(FILE, "movieId", "column of item ids", affects="data")
    rating_col: str = flag(
        FILE, "rating", "column of ratings; 'none': every row counts", affects="data"
    )
    sep: str | None = flag(
        FILE,
        None,
        r"column separator, \t for a tab (none: tab for .tsv, else comma)",
        affects="data",
    )
    quoting: str = flag(
        FILE,
        MINIMAL,
        "of text files: minimal: values may be quoted; none: quotes are part of the values",
        choices=(MINIMAL, NONE),
        affects="data",
    )
    threshold: float = flag(FILE, 4.0, "keep rows with at least this rating", affects="data")

    min_items_per_user: int = flag(SPLIT, 5, "drop users with fewer items", ge=1, affects="data")
    min_users_per_item: int = flag(SPLIT, 0, "drop items with fewer users", ge=0, affects="data")
    heldout_users: float | None = flag(
        SPLIT,
        None,
        f"users of the validation and of the test set each; below 1: a fraction of all users "
        f"(none: {_HELDOUT_USERS}, {_DEMO_HELDOUT_USERS} for the demo)",
        ge=1e-9,
        affects="data",
    )
    test_proportion: float = flag(
        SPLIT,
        0.2,
        "fraction of a held-out user's items that are targets",
        ge=1e-9,
        lt=1,
        affects="data",
    )
    seed: int = flag(
        SPLIT, 0, "seed of the split and of synthetic data", ge=0, le=2**31 - 1, affects="data"
    )

    def __post_init__(self) -> None:
        problems = [*out_of_range(self), *self._contradictions()]
        if problems:
            raise UserError("; ".join(problems) + ".")

    @property
    def synthetic(self) -> bool:
        """Return whether the ratings are generated."""
        return self.dataset == "synthetic"

    @property
    def default_source(self) -> Path:
        """Return the file to read without ``--ratings``."""
        return self.data_dir / self.dataset / "extracted" / self.dataset / "ratings.csv"

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the files and folders to read."""
        return (self.default_source,) if self.ratings is None else self.ratings

    @property
    def columns(self) -> Columns:
        """Return the columns and the format of the ratings files."""
        rating = None if self.rating_col == "none" else self.rating_col
        separator = "\t" if self.sep == r"\t" else self.sep
        return Columns(self.user_col, self.item_col, rating, separator, self.quoting)

    @property
    def split(self) -> SplitOptions:
        """Return how to filter and split, with the default that suits the data set."""
        demo = self.synthetic and self.scale in (None, "demo")
        default = _DEMO_HELDOUT_USERS if demo else _HELDOUT_USERS
        return SplitOptions(
            self.min_items_per_user,
            self.min_users_per_item,
            default if self.heldout_users is None else self.heldout_users,
            self.test_proportion,
            self.seed,
        )

    def _contradictions(self) -> Iterator[str]:
        if not re.fullmatch(r"[\w][\w.-]*", self.dataset):
            yield (
                f"--dataset {self.dataset!r} is not a valid directory name; use letters, digits, "
                "'.', '_' and '-'"
            )
        if self.scale is not None and not self.synthetic:
            yield "--scale applies to --dataset synthetic only"
        if self.ratings is not None and self.synthetic:
            yield "--ratings does not apply to --dataset synthetic; pass another --dataset"
        if self.ratings is not None and self.download:
            yield "--ratings and --download are mutually exclusive"
        if self.download and self.dataset not in DOWNLOADS:
            yield (
                f"--dataset {self.dataset!r} cannot be downloaded; pass one of "
                f"{', '.join(DOWNLOADS)}"
            )
        if not re.fullmatch(r"https?://\S+", self.mirror):
            yield f"--mirror {self.mirror!r} is not a URL that begins with http:// or https://"
        if self.user_col == self.item_col:
            yield f"--user_col and --item_col both name {self.user_col!r}"
        if self.rating_col in {self.user_col, self.item_col} - {"none"}:
            yield f"--rating_col {self.rating_col!r} is a column of ids; pass another one or 'none'"
        separator = self.columns.separator
        if separator is not None and not re.fullmatch(SEPARATOR, separator):
            yield (
                f"--sep {self.sep!r} is not a valid column separator; pass one ASCII character or "
                r"\t"
            )
        heldout = self.heldout_users
        if heldout is not None and 1 <= heldout < math.inf and heldout % 1:
            yield f"--heldout_users {heldout} is neither an integer nor below 1"


def parse_flags(arguments: Sequence[str] | None = None) -> PrepareConfig:
    """Parse a command line, by default that of the process.

    Raises:
        UserError: an unknown flag, a value of the wrong type or out of range, a contradiction.
    """
    return parse(
        PrepareConfig,
        "prepare_dataset.py",
        "Turn a ratings file into training, validation and test matrices",
        arguments,
    )
