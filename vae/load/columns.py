"""The columns of a ratings file."""

from __future__ import annotations

from dataclasses import dataclass

MINIMAL, NONE = "minimal", "none"
"""Values may be quoted, as RFC 4180 has it; or quotes are data like any other character."""


@dataclass(frozen=True)
class Columns:
    """Where a ratings file keeps what.

    Attributes:
        user: name of the column of user ids.
        item: name of the column of item ids.
        rating: name of the column of ratings, None where every row counts.
        separator: one character between two columns of a text file, None for the one that its
            ending stands for: a tab for .tsv, else a comma.
        quoting: of a text file: "minimal" where values may be quoted, "none" where quotes are data.
    """

    user: str
    item: str
    rating: str | None = None
    separator: str | None = None
    quoting: str = MINIMAL

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        return tuple(name for name in (self.user, self.item, self.rating) if name is not None)
