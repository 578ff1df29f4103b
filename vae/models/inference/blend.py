"""``--blend``: the weighted sum of the model's scores and those of EASE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow.compat.v1 as tf
from scipy.sparse import csr_matrix

from vae.baselines.ease import Ease, weights_per_item
from vae.baselines.ease_choice import fit_ease, validate
from vae.config import Evaluation, Execution
from vae.load.dataset import Dataset, HeldOut
from vae.metrics.ranking import MAX_CUTOFF, SELECTION_METRIC
from vae.models.checkpoints import checkpoint
from vae.models.graph.inference_graph import ITEM_INDICES, ITEM_WEIGHTS, MODEL_WEIGHT
from vae.models.inference.evaluate import evaluate
from vae.models.inference.trained_model import TrainedModel, Weights, open_inference_session
from vae.utils.console import Progress
from vae.utils.distributed import Workers, on_rank_0
from vae.utils.host import available_bytes
from vae.utils.run_log import RunLog

MODEL_WEIGHTS = tuple(tenths / 10 for tenths in range(11))
"""Weights of the model to choose from; that of EASE is 1 minus it."""


def blend(
    model: TrainedModel,
    dataset: Dataset,
    evaluation: Evaluation,
    execution: Execution,
    workers: Workers,
    log: RunLog,
    writes: bool = False,
) -> tuple[TrainedModel, Ease | None]:
    """Return the blend of a model and EASE, and EASE, with ``--blend ease``; else the model.

    Lambda and the dropout of EASE and the weight of the model are those with the best NDCG@100 on
    the validation users. They are chosen once, by rank 0: a run that ``writes``, as one that trains
    may, writes them into the checkpoint's state. All workers must call this together.

    Raises:
        UserError: the checkpoint is damaged, lambda too small, or out of memory.
        OSError: the choice cannot be written.
    """
    if evaluation.blend != "ease":
        return model, None
    # Without dropout in what was chosen before there was one.
    chosen = model.blend and {"ease_dropout": 0.0, **model.blend}
    given = {"ease_lambda": evaluation.ease_lambda, "ease_dropout": evaluation.ease_dropout}
    if chosen and any(value not in (None, chosen[name]) for name, value in given.items()):
        chosen = None
    origin = ", as chosen when the model was trained" if chosen else ""
    lambda_, dropout = ((chosen or given)[name] for name in given)
    users, items = dataset.train.shape
    memory = available_bytes(workers.local_size) // workers.local_size
    count = min(workers.allgather_object(weights_per_item(users, items, memory)))
    ease = _fit(dataset, lambda_, dropout, workers, log)
    linear = _linear_weights(ease, count, dataset, log)

    def choose() -> Mapping[str, float]:
        candidate = _blended(model, linear, {**ease.settings, "model_weight": 1.0})
        batch_size, progress = evaluation.batch_size_validation, log.progress
        weight = _choose_weight(candidate, dataset.validation, batch_size, execution, progress)
        best = {**ease.settings, "model_weight": weight}
        if writes and model.checkpoint is not None:
            state = checkpoint.read_state(model.checkpoint)
            checkpoint.replace_state(model.checkpoint, replace(state, blend=best))
        return best

    chosen = chosen or on_rank_0(workers, choose)
    weight = chosen["model_weight"]
    log.say(f"Blend: {weight:g} x model + {1 - weight:g} x EASE ({ease.description}){origin}.")
    return _blended(model, linear, chosen), ease


def _fit(
    dataset: Dataset, lambda_: float | None, dropout: float | None, workers: Workers, log: RunLog
) -> Ease:
    """Return EASE on all ranks; rank 0 alone chooses its settings."""
    fitted: list[Ease] = []

    def choose() -> Mapping[str, float]:
        fitted.append(fit_ease(dataset, lambda_, dropout, log))
        return fitted[0].settings

    if lambda_ is None or dropout is None:
        lambda_, dropout = on_rank_0(workers, choose).values()
    return fitted[0] if fitted else fit_ease(dataset, lambda_, dropout, log)


def _linear_weights(ease: Ease, count: int, dataset: Dataset, log: RunLog) -> Weights:
    """Return the variables of EASE in a blend, with so many weights per item."""
    items = dataset.train.shape[1]
    with log.progress("Computing the weights of EASE", items, "items") as bar:
        if count == items:
            return {ITEM_WEIGHTS: ease.item_weights(bar.update)}
        weights, indices = ease.largest_weights(count, bar.update)
    starts = np.arange(0, weights.size + 1, count)
    matrix = csr_matrix((weights.ravel(), indices.ravel(), starts), (items, items))
    before, after = (
        validate(ease, scores, dataset.validation, log)
        for scores in (ease.scores, lambda histories: histories @ matrix)
    )
    log.say(
        f"EASE: out of memory for the {items:,} weights of each item; with the {count:,} largest "
        f"validation {SELECTION_METRIC} is {after:.5f} instead of {before:.5f}."
    )
    return {ITEM_WEIGHTS: weights, ITEM_INDICES: indices}


def _choose_weight(
    blended: TrainedModel, users: HeldOut, batch_size: int, execution: Execution, progress: Progress
) -> float:
    """Return the weight with the best NDCG@100, of equal ones the largest, whatever it is now."""
    worker = Workers()
    k = min(MAX_CUTOFF, blended.architecture.items)
    ndcg = {}
    with (
        progress(
            "Choosing the weight of the blend", len(MODEL_WEIGHTS) * len(users.user_ids)
        ) as bar,
        open_inference_session(blended, execution, worker, k, batch_size) as (session, graph),
    ):
        (variable,) = tf.global_variables(MODEL_WEIGHT)
        for weight in MODEL_WEIGHTS:
            variable.load(weight, session)
            result = evaluate(session, graph, users, worker, batch_size, advance=bar.update)
            ndcg[weight] = result.metrics[SELECTION_METRIC].mean
    return max(MODEL_WEIGHTS, key=lambda weight: (np.nan_to_num(ndcg[weight]), weight))


def _blended(model: TrainedModel, linear: Weights, chosen: Mapping[str, float]) -> TrainedModel:
    assert model.weights is not None
    model_weight = np.array(chosen["model_weight"], np.float32)
    weights = {**model.weights, **linear, MODEL_WEIGHT: model_weight}
    return replace(model, weights=weights, blend=chosen)
