"""Columns and quoting of ratings files."""

from __future__ import annotations

from dataclasses import dataclass

MINIMAL, NONE = "minimal", "none"
"""Quoting: values may be quoted as in RFC 4180; or quotes are data like any other character."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of ratings files, and the format of text files.

    Attributes:
        user: name of the column of user ids.
        item: name of the column of item ids.
        rating: name of the column of ratings, None if every row is an interaction.
        separator: column separator of text files, one character; None for the default of the file
            name's extension: a tab for .tsv, else a comma.
        quoting: quoting of text files, ``MINIMAL`` or ``NONE``.
    """

    user: str
    item: str
    rating: str | None = None
    separator: str | None = None
    quoting: str = MINIMAL

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns to read."""
        return tuple(name for name in (self.user, self.item, self.rating) if name is not None)
