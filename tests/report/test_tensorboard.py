"""TensorBoard's event files, read back as TensorBoard reads them."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae.errors import UserError
from vae.report.tensorboard import TensorBoardWriter


def points(folder, tag):
    """Epoch and value of each point that TensorBoard would draw."""
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_each_metric_is_a_point_of_its_epoch(tmp_path):
    summaries = TensorBoardWriter(tmp_path)
    for epoch in (1, 2):
        summaries.add(epoch, {"loss": epoch / 4, "learning_rate": 0.5})
        summaries.add(epoch, {"ndcg@100": epoch / 8, "valid_users": 7})
    assert points(tmp_path, "train/loss") == [(1, 0.25), (2, 0.5)]
    assert points(tmp_path, "train/learning_rate") == [(1, 0.5), (2, 0.5)]
    assert points(tmp_path, "validation/ndcg@100") == [(1, 0.125), (2, 0.25)]
    assert points(tmp_path, "validation/valid_users") == [(1, 7), (2, 7)]


def test_a_resumed_run_adds_points_and_replaces_those_of_epochs_trained_again(tmp_path):
    for epochs, loss in ((range(1, 6), 8.0), (range(4, 7), 4.0)):
        summaries = TensorBoardWriter(tmp_path, completed=epochs[0] - 1)
        for epoch in epochs:
            summaries.add(epoch, {"loss": loss})
    epochs, losses = np.transpose(points(tmp_path, "train/loss"))
    assert epochs.tolist() == [1, 2, 3, 4, 5, 6]
    assert losses.tolist() == [8, 8, 8, 4, 4, 4]


def test_a_validation_that_is_repeated_leaves_the_training_of_its_epoch(tmp_path):
    for epoch in (1, 2):
        TensorBoardWriter(tmp_path, completed=epoch - 1).add(epoch, {"loss": 8.0})
    TensorBoardWriter(tmp_path, completed=2).add(2, {"ndcg@100": 0.5})
    assert points(tmp_path, "train/loss") == [(1, 8.0), (2, 8.0)]
    assert points(tmp_path, "validation/ndcg@100") == [(2, 0.5)]


def test_a_restarted_run_replaces_the_points_of_the_one_before(tmp_path):
    for loss in (8.0, 4.0):
        TensorBoardWriter(tmp_path).add(1, {"loss": loss})
    assert points(tmp_path, "train/loss") == [(1, 4.0)]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--tensorboard_dir .*file/x: cannot be written"):
        TensorBoardWriter(tmp_path / "file/x")
