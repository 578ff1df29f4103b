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
EVERY_RUN = ("loss", "kl", "validation", "throughput")


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ({}, set()),
        ({1: TRAINING, 2: TRAINING, 3: TRAINING | VALIDATION | ERRORS}, {*EVERY_RUN}),
        ({1: TRAINING | VALIDATION}, {*EVERY_RUN}),  # of a single user, without a standard error
        ({1: TRAINING | VALIDATION | {"loss_scale": 2.0**15}}, {*EVERY_RUN, "loss_scale"}),
    ],
    ids=["nothing", "epochs", "a user", "mixed precision"],
)
def test_there_is_an_image_for_whatever_was_logged(rows, names, tmp_path):
    epoch_log = EpochLog(tmp_path / "epochs.csv")
    for epoch, values in rows.items():
        epoch_log.add(epoch, values)
    curves = draw_curves(epoch_log)
    assert set(curves) == names
    for png in curves.values():
        pixels = imread(io.BytesIO(png), format="png")
        assert pixels.shape[1] > 800
        assert pixels.std() > 0.05  # something is drawn
