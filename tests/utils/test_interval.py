"""Intervals between checkpoints."""

import pytest

from vae.utils.interval import Interval


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("10m", Interval(minutes=10)),
        ("0.5m", Interval(minutes=0.5)),
        ("5e", Interval(epochs=5)),
        ("5", Interval(epochs=5)),
    ],
)
def test_minutes_and_epochs_are_understood(text, interval):
    assert Interval.parse(text) == interval


@pytest.mark.parametrize("text", ["", "0", "0e", "0m", "0.0m", "1.5e", "m", "1h", "-1m", "infm"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="interval"):
        Interval.parse(text)


def test_epochs_end_at_multiples_and_minutes_after_their_seconds():
    assert [n for n in range(1, 10) if Interval(epochs=4).epochs_are_over(n)] == [4, 8]
    assert not Interval(epochs=4).minutes_are_over(1e9)
    assert Interval(minutes=2).minutes_are_over(120)
    assert not Interval(minutes=2).minutes_are_over(119)
    assert not Interval(minutes=2).epochs_are_over(2)
