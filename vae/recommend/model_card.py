"""The model card of an exported model: what it is, what it was trained on, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from vae.config import Config
from vae.load.dataset import Dataset
from vae.models.trained_model import TrainedModel
from vae.report.environment import dataset_metadata, software_versions

_TEXT = """\
# Model card: recommendations for {dataset}

A variational autoencoder for collaborative filtering (Mult-VAE, Liang et al. 2018,
arXiv:1802.05814). From the items that a user knows it ranks all others. It knows nothing but
(user, item) pairs: it repeats what is popular and whatever bias the data have.

{facts}

## Signatures

`serving_default` takes `histories`, a (users, length) matrix of {id_type} item ids. Rows are filled
up with {padding_value}; an id that the model does not know is ignored. It answers with `items` and
`scores`, (users, {k}), best first, and `known_items`, (users,). Items of the history are never
among the answers. Where a user has no known item, `known_items` is 0 and the answers are the most
popular items, scored with the logarithm of their share of the training users. A list that ends
early is filled up with {padding_value}.

`columns` is the same with the columns of `item_ids.csv` in place of ids; -1 fills up.

## Flags of the training run

{flags}
"""


def model_card(
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
    figures: Mapping[str, float],
    padding_value: str | int,
) -> str:
    """The card, as Markdown.

    Args:
        config: the flags of the run that exports.
        dataset: what the model was trained on.
        model: knows where it comes from.
        figures: metrics by name.
        padding_value: stands for no item.
    """
    architecture = model.architecture
    rows = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **dataset_metadata(dataset),
        "architecture": f"{architecture.hidden_dim} {architecture.activation} units, "
        f"{architecture.latent_dim} latent dimensions",
        "weights of the last layer": config.export_dtype,
        **model.metadata,
        **{name: f"{value:.5f}" for name, value in figures.items()},
        **software_versions(),
    }
    return _TEXT.format(
        dataset=dataset.name,
        facts=_table(rows),
        id_type="int64" if isinstance(padding_value, int) else "string",
        padding_value=f"`{padding_value}`" if isinstance(padding_value, int) else '`""`',
        k=min(config.top_results, architecture.items),
        flags=_table(model.flags),
    )


def _table(rows: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [
        f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows.items()
    ]
    return "\n".join(lines)
