"""Numbers and times as files and flags have them."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone

NUMBER = re.compile(
    r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)\s*", re.IGNORECASE | re.ASCII
)
"""Pattern of a number in text."""

_DATE = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?\s*(?:Z|UTC|([+-])(\d\d)(?::?(\d\d))?)?)?\s*",
    re.ASCII,
)


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
    *fields, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime(*(int(field or 0) for field in fields), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
    except ValueError:  # such as a 30th of February
        return math.nan
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)).total_seconds()
    seconds = moment.timestamp() + float(fraction or 0)
    return seconds + offset if sign == "-" else seconds - offset
