"""epochs.csv: one row per epoch, across interruptions."""

import csv
import os

import pytest

from vae.errors import UserError
from vae.report.epoch_log import EpochLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "epochs.csv"


def train(path, epochs, loss):
    """Adds epochs with this loss, every second one with a validation."""
    epoch_log = EpochLog(path, completed=epochs[0] - 1)
    for epoch in epochs:
        epoch_log.add(epoch, {"loss": loss})
        if epoch % 2 == 0:
            epoch_log.add(epoch, {"ndcg@100": loss / 16})
    return epoch_log


def test_a_row_holds_an_epochs_training_and_its_validation(path):
    train(path, range(1, 4), 8.0)
    with path.open() as file:
        assert [*csv.DictReader(file)] == [
            {"epoch": "1", "loss": "8.0", "ndcg@100": ""},
            {"epoch": "2", "loss": "8.0", "ndcg@100": "0.5"},
            {"epoch": "3", "loss": "8.0", "ndcg@100": ""},
        ]


def test_a_resumed_run_keeps_earlier_epochs_and_replaces_those_trained_again(path):
    train(path, range(1, 6), 8.0)
    epoch_log = train(path, range(4, 7), 4.0)
    assert epoch_log.series("loss") == ([1, 2, 3, 4, 5, 6], [8, 8, 8, 4, 4, 4])
    assert epoch_log.series("ndcg@100") == ([2, 4, 6], [0.5, 0.25, 0.25])
    assert EpochLog(path).series("loss") == epoch_log.series("loss")


def test_a_validation_that_is_repeated_leaves_the_row_of_its_epoch(path):
    train(path, range(1, 6), 8.0)
    EpochLog(path, completed=4).add(4, {"ndcg@100": 0.75})
    assert EpochLog(path).series("loss") == ([1, 2, 3, 4], [8, 8, 8, 8])
    assert EpochLog(path).series("ndcg@100") == ([2, 4], [0.5, 0.75])


def test_a_restarted_run_discards_the_rows_of_the_one_before(path):
    train(path, range(1, 6), 8.0)
    assert train(path, [1], 4.0).series("loss") == ([1], [4.0])


def test_a_run_that_trains_nothing_reads_and_leaves_the_file(path):
    train(path, range(1, 4), 8.0)
    before = path.read_text()
    assert EpochLog(path).epochs() == [1, 2, 3]
    assert path.read_text() == before


def test_a_table_that_somebody_changed_or_removed_is_written_again(path):
    log = train(path, range(1, 4), 8.0)
    for change in (path.unlink, lambda: path.write_text("epoch,loss\n")):
        change()
        log.add(log.epochs()[-1] + 1, {"loss": 8.0})
        assert EpochLog(path).series("loss") == log.series("loss")


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss\n1,high\n",
        "loss\n2\n",
        "epoch,loss\n1,2,3\n",
        "epoch,loss\n1.0,2\n",
        "epoch,loss\n,2\n",
    ],
)
def test_a_file_that_is_not_a_table_of_epochs_is_named(path, text):
    path.write_text(text)
    with pytest.raises(UserError, match=r"epochs.csv: is damaged .* remove it"):
        EpochLog(path)


def test_a_pipe_in_place_of_the_table_is_refused_without_a_hang(path):
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"epochs.csv: .* cannot be read .*not a regular file"):
        EpochLog(path)
