"""Model card of an exported model: architecture, data, metrics, signatures and flags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from vae.config import ENCODERS, Config
from vae.load.dataset import Dataset
from vae.models.inference.trained_model import TrainedModel
from vae.report.environment import dataset_metadata, software_versions

_TEXT = """\
# Model card: recommendations for {dataset}

A variational autoencoder for collaborative filtering: {paper}.
From the history of a user it ranks all other items. It is trained on interactions alone, and
repeats the popularity and any other bias of the data.

{metadata}

## Signatures

`serving_default` takes `histories`, a (users, length) matrix of {id_type} item ids, padded with
{padding_value}; an id that the model does not know is ignored. It returns `items` and `scores`,
(users, {k}), best first, and `known_items`, (users,), the number of items of each history that the
model knows. Items of the history are never recommended. A cold-start user, whose `known_items` is
0, gets the most popular items, scored with the logarithm of the fraction of training users that
have them. A list that ends early is padded with {padding_value}, at the least finite float32.

`columns` is the same with the item indices of `item_ids.csv` in place of ids, padded with -1.

`filtered` and `filtered_columns` take two more inputs, `allow` and `deny`, padded likewise, with a
row for each user or a single one for all: only allowed items are ranked, and denied ones never. A
row of `allow` that holds nothing but padding values allows everything.

## Flags of the training run

{flags}
"""


def model_card(
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
    metrics: Mapping[str, float],
    padding_value: str | int,
) -> str:
    """Render the model card as Markdown.

    Args:
        config: flags of the run that exports.
        dataset: prepared data set that the model was trained on.
        model: trained model, with the flags and the metadata of its training run.
        metrics: metrics and statistics by their log keys.
        padding_value: raw id that stands for no item.
    """
    architecture = model.architecture
    rows = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **dataset_metadata(dataset),
        "architecture": f"{architecture.encoder} encoder, {architecture.decoder} decoder, "
        f"{architecture.prior} prior; {architecture.hidden_dim} hidden units "
        f"({architecture.activation}), {architecture.latent_dim} latent dimensions",
        **_blend(model),
        "weights of the last layer": config.evaluation.export_dtype,
        **model.metadata,
        **{name: f"{value:.5f}" for name, value in metrics.items()},
        **software_versions(),
    }
    return _TEXT.format(
        dataset=dataset.name,
        paper=ENCODERS[architecture.encoder],
        metadata=_table(rows),
        id_type="int64" if isinstance(padding_value, int) else "string",
        padding_value=f"`{padding_value}`" if isinstance(padding_value, int) else '`""`',
        k=min(config.evaluation.top_results, architecture.items),
        flags=_table(model.flags),
    )


def _blend(model: TrainedModel) -> Mapping[str, str]:
    """Return the row on the linear model that the scores are mixed with, if there is one."""
    if not model.is_blended or model.blend is None:
        return {}
    weight, lambda_ = model.blend["model_weight"], model.blend["ease_lambda"]
    mixed = f"{weight:g} x this model + {1 - weight:g} x EASE (Steck 2019, arXiv:1905.03375)"
    return {"scores": f"{mixed} with lambda {lambda_:g}, each standardised per user"}


def _table(rows: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [
        f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows.items()
    ]
    return "\n".join(lines)
