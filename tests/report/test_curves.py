"""Learning curves: an image for whatever was logged."""

import io

import pytest
from matplotlib.image import imread

from vae.report.curves import draw_curves
from vae.report.epoch_log import EpochLog

TRAINING = {
    "train_throughput": 1000.0, "loss": 5.0, "neg_log_likelihood": 4.0, "kl_divergence": 10.0,
    "kl_weight": 0.1,
}  # fmt: skip
VALIDATION = {"ndcg@100": 0.3, "recall@20": 0.3, "recall@50": 0.4}
ERRORS = {f"{name}_se": 0.01 for name in VALIDATION}


@pytest.fixture
def epoch_log(tmp_path):
    return EpochLog(tmp_path / "epochs.csv")


def test_there_is_an_image_for_training_and_one_for_validation(epoch_log):
    for epoch in range(1, 4):
        epoch_log.add(epoch, TRAINING)
    epoch_log.add(3, VALIDATION | ERRORS)
    curves = draw_curves(epoch_log)
    assert set(curves) == {"loss", "kl", "validation", "throughput"}
    for png in curves.values():
        pixels = imread(io.BytesIO(png), format="png")
        assert pixels.shape[1] > 800
        assert pixels.std() > 0.05  # something is drawn


def test_a_loss_scale_has_an_image_where_there_is_one(epoch_log):
    epoch_log.add(1, TRAINING | {"loss_scale": 2.0**15})
    assert "loss_scale" in draw_curves(epoch_log)


def test_a_single_user_has_no_standard_error_and_is_drawn_without(epoch_log):
    epoch_log.add(1, TRAINING)
    epoch_log.add(1, VALIDATION)
    assert "validation" in draw_curves(epoch_log)


def test_without_epochs_there_is_nothing_to_draw(epoch_log):
    assert draw_curves(epoch_log) == {}
