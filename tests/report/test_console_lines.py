"""How logged values are shown to people."""

import pytest

from vae.report import console_lines
from vae.report.console_lines import ConsoleLines, duration, unit_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.2, "1 min"), (61, "2 min"), (3541, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_durations_are_rounded_up_to_what_people_read(seconds, text):
    assert duration(seconds) == text


def test_the_console_shows_what_people_watch(monkeypatch):
    monkeypatch.setattr(console_lines, "monotonic", iter([1000.0, 1190.0, 1200.0]).__next__)
    epoch = {"train_epoch_time": 90.0, "train_throughput": 14068.2, "loss": 102.71, "kl_weight": 1}
    metrics = {"ndcg@100": 0.3823, "recall@20": 0.461, "recall@50": 0.651}
    errors = {"ndcg@100_se": 0.0101, "recall@20_se": 0.01, "valid_time": 2.0}
    lines = ConsoleLines(epochs=60)
    logged = [
        ("PARAMETER", {"epochs": 60, "lr": 0.004}, ""),
        ((12,), epoch, ""),
        ((12,), metrics | errors, "best so far"),
        ((13,), epoch, ""),
        ((13,), metrics, ""),
        ((60,), epoch, ""),
        ((), {"mean_training_throughput": 14000.0, "best_ndcg@100": 0.3823, "x": 1.0}, ""),
        ((), {"x": 1.0}, ""),
    ]
    assert [line for arguments in logged if (line := lines.line(*arguments))] == [
        "epoch 12/60   loss 102.7   14,068 users/s   1 h 12 min left",
        "epoch 12      NDCG@100 0.382 ± 0.010   Recall@20 0.461   Recall@50 0.651   best so far",
        "epoch 13/60   loss 102.7   14,068 users/s   1 h 50 min left",
        "epoch 13      NDCG@100 0.382   Recall@20 0.461   Recall@50 0.651",
        "epoch 60/60   loss 102.7   14,068 users/s",
        "summary       training 14,000 users/s   best NDCG@100 0.382",
    ]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("loss", "nats/user"), ("valid_users", "users"), ("batch_1_p90_latency", "s"),
        ("train_epoch_time", "s"), ("ndcg@100", None), ("ndcg@100_se", None),
    ],
)  # fmt: skip
def test_the_end_of_a_name_says_its_unit(name, unit):
    assert unit_of(name) == unit
