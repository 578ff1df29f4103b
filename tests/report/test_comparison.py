"""The tables of a test: every number of the summary, and no quartile without users."""

from dataclasses import replace

import numpy as np
import pytest
from metrics.test_user_results import USERS, compare

from vae.report.comparison import comparison_tables


def test_the_tables_show_all_of_the_summary():
    result = compare()
    summary, lines = result.summary(), comparison_tables(result).splitlines()
    assert lines[0] == "Test on 23 held-out users, 22 of them with targets:"
    rows = {line[:20].strip(): line[20:].split() for line in lines if not line.endswith(":")}
    assert f"{summary['test_coverage@100']:.1%}" in rows["coverage@100"]
    shortest, longest = min(result.lengths), max(result.lengths)
    (first,) = (name for name in rows if name.startswith(f"{shortest} to "))
    assert f"{summary['ease_ndcg@100_quartile_1']:.5f}" in rows[first]
    assert any(name.endswith(f" to {longest}") for name in rows)
    assert f"{summary['test_minus_ease_recall@20']:+.5f}" in rows["recall@20"]  # the last table's


@pytest.mark.parametrize(
    ("lengths", "ranges"),
    [
        ([40] * USERS, ["40 to 40"]),
        ([7] * 3 + [40] * 18 + [55, 60], ["7 to 40", "41 to 60"]),  # the quartiles are 40, 40, 40
        ([7] * 12 + [40] * 11, ["7 to 7", "8 to 40"]),
    ],
)
def test_quartiles_without_users_are_left_out(lengths, ranges):
    tables = comparison_tables(replace(compare(), lengths=np.array(lengths)))
    rows = tables.partition("by the number of items in the history:\n")[2].splitlines()[1:]
    assert [row[:20].strip() for row in rows] == ranges
    assert "nan" not in tables


def test_without_a_baseline_there_is_no_difference():
    assert "minus" not in comparison_tables(replace(compare(), others={}))
