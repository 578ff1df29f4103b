"""Flags of ``prepare_dataset.py``."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from pathlib import Path

from vae.cli import (
    FlagError,
    changed_values,
    flag,
    flags,
    out_of_range,
    overwritten,
    parse,
    useless,
    without_effect,
)

DATASET = "data set"
FILE = "ratings file"
SPLIT = "filter and split"

SCALES = ("demo", "ml-20m", "wide", "million")
DOWNLOADS = ("ml-20m", "ml-100k", "ml-1m", "ml-10m", "ml-25m", "ml-32m", "ml-latest-small")
GROUPLENS = "https://files.grouplens.org/datasets/movielens"

_DEMO_HELDOUT_USERS = 500
_HELDOUT_USERS = 10_000

RANDOM, LAST = "random", "last"
"""Targets of a held-out user: items chosen at random, as by Liang et al., or the last ones."""

MINIMAL, NONE = "minimal", "none"
"""Quoting: values may be quoted as in RFC 4180; or quotes are data like any other character."""

WHITESPACE = "whitespace"
"""Separator: one or more spaces and tabs."""

_SAME_IN_COLUMNS = ("encoding", "decimal", "comment", "drop_missing", "keep_null_ids", "quoting")
"""Flags that ``Columns`` has under the same names."""

_FORMAT = ("format", "sep", "no_header", *_SAME_IN_COLUMNS)
"""Flags on the format of ratings files."""

_SEPARATOR = r'[\t\x20-\x7e](?<!")|[\x21-\x7e]{2,}(?<!")'
"""Pattern of a column separator: printable ASCII characters, or a tab; no quote."""

NUMBER = re.compile(
    r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)\s*", re.IGNORECASE | re.ASCII
)
"""Pattern of a number in text."""

_DATE = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)"
    r"(?:[T ](\d\d:\d\d)(?::(\d\d)(\.\d+)?)?\s*(?:Z|UTC|([+-]\d\d)(?::?(\d\d))?)?)?\s*",
    re.ASCII,
)


@dataclass(frozen=True)
class Columns:
    """Columns of ratings files, and the format of text files; see also the flags of these names.

    Attributes:
        user: name of the column of user ids; without a header its number from 0.
        item: the same of item ids.
        rating: the same of ratings; None if every row is an interaction.
        separator: characters between columns, or ``WHITESPACE``; None to find it out.
        header: whether the first row has the names of the columns.
        encoding: that of files without a byte-order mark.
        lists: whether the rows of text files are lists, ``user item item ...``, without a header.
    """

    user: str
    item: str
    rating: str | None = None
    separator: str | None = None
    quoting: str = MINIMAL
    header: bool = True
    encoding: str | None = None
    decimal: str = "."
    comment: str | None = None
    keep_null_ids: bool = False
    drop_missing: bool = False
    lists: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns to read."""
        return tuple(name for name in (self.user, self.item, self.rating) if name is not None)


@dataclass(frozen=True)
class SplitOptions:
    """How to filter and split interactions: flags of these names, see there.

    The time of a split is a number, and the number of held-out users that of the data set.
    """

    min_items_per_user: int = 5
    min_users_per_item: int = 0
    heldout_users: float = _HELDOUT_USERS
    test_proportion: float = 0.2
    seed: int = 0
    targets: str = RANDOM
    split_time: float | None = None


_source = partial(flag, DATASET)
_file = partial(flag, FILE, affects="data")
_split = partial(flag, SPLIT, affects="data")


@dataclass(frozen=True)
class PrepareConfig:
    """The flags of ``prepare_dataset.py``.

    Attributes:
        given: names of the flags of the command line, with their default values or others.

    Raises:
        UserError: values out of range or flags that contradict each other, all named at once.
    """

    given: frozenset[str] = frozenset()

    data_dir: Path = _source(Path("/data"), "folder of the data sets")
    dataset: str = _source("ml-20m", "name of the data set; 'synthetic' is generated")
    scale: str | None = _source(None, "size of the synthetic data set (none: demo)", choices=SCALES)
    download: bool = _source(
        False, f"first fetch the data set from GroupLens: {', '.join(DOWNLOADS)}"
    )
    archive: Path | None = _source(
        None, "the same data sets from a zip archive that GroupLens published"
    )
    mirror: str = _source(GROUPLENS, "where --download finds DATASET.zip", needs=("download",))
    force: bool = _source(False, "prepare again what is already prepared")
    extend: str | None = _source(
        None,
        "add --ratings to prepared data; new users go to training or, in part, are held out too",
        choices=("training", "heldout"),
        bare="training",
        needs=("ratings",),
    )

    ratings: tuple[Path, ...] | None = flag(
        FILE,
        None,
        "CSV, TSV, JSON lines or Parquet files, or folders of them "
        "(none: DATA_DIR/DATASET/extracted/DATASET/ratings.csv)",
    )
    split_dir: Path | None = flag(
        FILE,
        None,
        "folder of a published split: files train, validation_tr, validation_te, test_tr, test_te",
    )
    format: str = _file(
        "rows",
        "of text files: rows: one per interaction; lists: a user and all items, 'user item item'",
        choices=("rows", "lists"),
    )
    user_col: str | None = _file(None, "column of user ids (none: userId; of --split_dir uid)")
    item_col: str | None = _file(None, "column of item ids (none: movieId; of --split_dir sid)")
    rating_col: str = _file(
        "rating", "column of ratings; 'none', as for --split_dir and lists: every row counts"
    )
    time_col: str | None = _file(
        None, "column of times, numbers or dates, for --targets last and --split_time"
    )
    sep: str | None = _file(
        None,
        r"characters between columns, e.g. ';', '::' or \t, or 'whitespace' "
        "(none: by the name or the first rows)",
    )
    no_header: bool = _file(
        False, "text files have no header row; columns are numbered from 0, e.g. --user_col 0"
    )
    encoding: str | None = _file(None, "encoding of text files, e.g. latin-1 (none: UTF-8)")
    decimal: str = _file(".", "character before the fraction of a rating")
    comment: str | None = _file(None, "skip lines that start with this character")
    drop_missing: bool = _file(False, "drop rows without an id or a rating, and count them")
    rejects: Path | None = flag(
        FILE,
        None,
        "write these rows and their reasons to a CSV file",
        needs=("drop_missing", "extend"),
    )
    keep_null_ids: bool = _file(
        False, r"take ids such as NULL, NA, None and \N as ids, not as missing"
    )
    quoting: str = _file(
        MINIMAL,
        "of text files: minimal: values may be quoted; none: quotes are part of the values",
        choices=(MINIMAL, NONE),
    )
    threshold: float = _file(4.0, "keep rows with at least this rating")

    min_items_per_user: int = _split(5, "drop users with fewer items", ge=1)
    min_users_per_item: int = _split(
        0,
        "drop items with fewer users; once, before --min_items_per_user, which may leave items "
        "with fewer",
        ge=0,
    )
    heldout_users: float | None = _split(
        None,
        f"users of validation and test each; below 1: a fraction of all users "
        f"(none: {_HELDOUT_USERS}, {_DEMO_HELDOUT_USERS} for the demo)",
        ge=1e-9,
    )
    test_proportion: float = _split(
        0.2, "fraction of a held-out user's items that are targets", ge=1e-9, lt=1
    )
    targets: str = _split(
        RANDOM,
        "which of a held-out user's items are targets: random ones, or the last by --time_col",
        choices=(RANDOM, LAST),
    )
    split_time: str | None = _split(
        None, "train on interactions up to this number or date, e.g. 2020-12-31; test on later ones"
    )
    seed: int = _split(0, "seed of the split and of synthetic data", ge=0, le=2**31 - 1)

    def __post_init__(self) -> None:
        problems = [*out_of_range(self), *without_effect(self), *self._contradictions()]
        if problems:
            raise FlagError(problems)

    @property
    def synthetic(self) -> bool:
        """Return whether the ratings are generated."""
        return self.dataset == "synthetic"

    @property
    def default_source(self) -> Path:
        """Return the file to read without ``--ratings``."""
        return self.data_dir / self.dataset / "extracted" / self.dataset / "ratings.csv"

    @property
    def columns(self) -> Columns:
        """Return the columns and the format of the ratings files."""
        lists, is_split = self.format == "lists", self.split_dir is not None
        user, item = ("uid", "sid") if is_split else ("userId", "movieId")
        rating = None if lists or is_split or self.rating_col == "none" else self.rating_col
        return Columns(
            self.user_col or user,
            self.item_col or item,
            rating,
            separator={r"\t": "\t", r"\s+": WHITESPACE}.get(self.sep or "", self.sep),
            header=not self.no_header,
            lists=lists,
            **{name: getattr(self, name) for name in _SAME_IN_COLUMNS},
        )

    @property
    def split(self) -> SplitOptions:
        """Return how to filter and split, with the default that suits the data set."""
        demo = self.synthetic and self.scale in (None, "demo")
        default = _DEMO_HELDOUT_USERS if demo else _HELDOUT_USERS
        effective = {
            "heldout_users": default if self.heldout_users is None else self.heldout_users,
            "split_time": None if self.split_time is None else parse_time(self.split_time),
        }
        given = {field.name: getattr(self, field.name) for field in fields(SplitOptions)}
        return SplitOptions(**given | effective)

    def _contradictions(self) -> Iterator[str]:
        if not re.fullmatch(r"[\w][\w.-]*", self.dataset):
            yield (
                f"--dataset {self.dataset!r} is not a valid directory name; use letters, digits, "
                "'.', '_' and '-'"
            )
        if self.scale is not None and not self.synthetic:
            yield "--scale applies to --dataset synthetic only"
        files = {"--ratings": self.ratings, "--split_dir": self.split_dir}
        for name in (name for name, value in files.items() if value and self.synthetic):
            yield f"{name} does not apply to --dataset synthetic; pass another --dataset"
        if sum(map(bool, (self.archive, self.download, *files.values()))) > 1:
            yield "--archive, --ratings, --split_dir and --download are mutually exclusive"
        if (self.download or self.archive) and self.dataset not in DOWNLOADS:
            flag = "--download" if self.download else "--archive"
            fix = f"pass one of {', '.join(DOWNLOADS)}"
            yield f"--dataset {self.dataset!r} is not a data set that {flag} knows; {fix}"
        if not re.fullmatch(r"https?://\S+", self.mirror):
            yield f"--mirror {self.mirror!r} is not a URL that begins with http:// or https://"
        columns = self.columns
        if columns.user == columns.item:
            yield f"--user_col and --item_col both name {columns.user!r}"
        if columns.rating in (columns.user, columns.item):
            yield f"--rating_col {columns.rating!r} is a column of ids; pass another one or 'none'"
        preprocessed = self.data_dir / self.dataset / "preprocessed"
        outputs = [("--data_dir", preprocessed), ("--rejects", self.rejects)]
        ratings = [("--ratings", path) for path in self.ratings or ()]
        others = [("--archive", self.archive), ("--split_dir", self.split_dir)]
        yield from overwritten(outputs, [], [*ratings, *others])
        heldout = self.heldout_users
        if heldout is not None and 1 <= heldout < math.inf and heldout % 1:
            yield f"--heldout_users {heldout} is neither an integer nor below 1"
        if self.extend is not None:
            yield from useless(self, ("force",), "with --extend")
        yield from self._contradictions_of_times()
        yield from self._contradictions_of_text()

    def _contradictions_of_times(self) -> Iterator[str]:
        if self.time_col is None:
            yield from (
                f"--{name} {getattr(self, name)} needs --time_col"
                for name in ("targets", "split_time")
                if name in changed_values(self)
            )
            return
        if self.targets == RANDOM and self.split_time is None:
            yield "--time_col has no effect without --targets last or --split_time"
        if self.time_col in self.columns.names:
            yield f"--time_col {self.time_col!r} is a column of ids or ratings; pass another one"
        if self.split_time is not None and not math.isfinite(parse_time(self.split_time)):
            yield (
                f"--split_time {self.split_time!r} is neither a number nor a date such as "
                "2020-12-31 or 2020-12-31T23:59:59"
            )

    def _contradictions_of_text(self) -> Iterator[str]:
        columns, separator = self.columns, self.columns.separator
        fetched = {"--dataset synthetic": self.synthetic, "--download": self.download}
        for source, is_given in {**fetched, "--archive": self.archive is not None}.items():
            if is_given:
                yield from useless(self, _FORMAT, f"with {source}, whose files have one format")
        if columns.rating is None:
            yield from useless(self, ("threshold", "decimal"), "where every row counts")
            if self.rating_col != "none":
                yield from useless(self, ("rating_col",), "where every row counts")
        if columns.lists:
            yield from useless(self, ("no_header", "quoting", "time_col"), "with --format lists")
        if self.split_dir is not None:
            of_split = [n for n, f in flags(PrepareConfig).items() if f.metadata["group"] == SPLIT]
            yield from useless(self, [*of_split, "time_col"], "with --split_dir, which is split")
        if separator is not None and not re.fullmatch(_SEPARATOR, separator):
            yield (
                f"--sep {self.sep!r} is not a valid column separator; pass printable ASCII "
                r"characters other than quotes, \t or whitespace"
            )
        if separator is not None and len(separator) > 1:
            yield from useless(self, ("quoting",), f"with --sep {self.sep}, where quotes are data")
        if (columns.decimal, columns.quoting) == (separator, NONE):
            yield from useless(self, ("decimal",), f"with --sep {self.sep} and --quoting none")
        names = dict(zip(("user", "item", "rating"), columns.names, strict=False))
        for name, value in {**names, "time": self.time_col}.items() if self.no_header else ():
            if value is not None and not re.fullmatch(r"[0-9]{1,4}", value):
                yield (
                    f"--{name}_col {value!r} is not a column number, which --no_header needs; the "
                    "first column is 0"
                )
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            yield f"--encoding {self.encoding!r} is not a text encoding; pass e.g. latin-1"
        for name in ("decimal", "comment"):
            value = getattr(self, name)
            if value is not None and len(value) != 1:
                yield f"--{name} {value!r} is not a single character"
        if self.decimal.isalnum() or self.decimal in "+-":
            yield f"--decimal {self.decimal!r} is part of numbers; pass e.g. ','"


def parse_time(text: str) -> float:
    """Return a number as it is, and a date in seconds since 1970; NaN if the text is neither.

    Args:
        text: a number, or a date as in ISO 8601, such as ``2020-12-31``, ``2020-12-31 23:59:59`` or
            ``2020-12-31T23:59:59.5+01:00``; UTC if it names no offset.
    """
    if NUMBER.fullmatch(text):
        return float(text)
    found = _DATE.fullmatch(text)
    if found is None:
        return math.nan
    day, clock, second, fraction, hours, minutes = found.groups()
    text = f"{day}T{clock or '00:00'}:{second or '00'}{hours or '+00'}:{minutes or '00'}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # such as a 30th of February
        return math.nan
    return moment.timestamp() + float(fraction or 0)


def _is_text_encoding(name: str) -> bool:
    """Return whether Python can decode text of this encoding piece by piece."""
    text = "user,item\n" * 9
    try:
        pieces = (bytes([byte]) for byte in text.encode(name))
        return "".join(codecs.iterdecode(pieces, name)) == text
    except (LookupError, ValueError):
        return False


def parse_flags(arguments: Sequence[str] | None = None) -> PrepareConfig:
    """Parse a command line, by default that of the process."""
    description = "Turn a ratings file into training, validation and test matrices"
    return parse(PrepareConfig, "prepare_dataset.py", description, arguments)
