"""Lines that people watch."""

import pytest

from vae.utils.console_lines import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.2, "1 min"), (61, "2 min"), (3541, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_durations_are_rounded_up_to_what_people_read(seconds, text):
    assert duration(seconds) == text
