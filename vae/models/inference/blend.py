"""``--blend``: the weighted sum of the model's scores and those of EASE."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.baselines.ease import Ease, choose_lambda
from vae.config import Config
from vae.load.dataset import Dataset
from vae.metrics.ranking import SELECTION_METRIC
from vae.models.checkpoints import checkpoint
from vae.models.graph.inference_graph import ITEM_WEIGHTS, MODEL_WEIGHT
from vae.models.inference.evaluate import evaluate, min_ranking_depth
from vae.models.inference.trained_model import TrainedModel, open_inference_session
from vae.utils.console import Progress
from vae.utils.distributed import SingleWorker, Workers, on_rank_0
from vae.utils.run_log import RunLog

MODEL_WEIGHTS = tuple(tenths / 10 for tenths in range(11))
"""Weights of the model to choose from; that of EASE is 1 minus it."""


def blend(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
    writes: bool = False,
) -> TrainedModel:
    """Return the blend of a model and EASE, with ``--blend ease``; else the model.

    Lambda of EASE and the weight of the model are those with the best NDCG@100 on the validation
    users. They are chosen once: a run that trains writes them into the checkpoint's state.

    Args:
        config: flags: ``ease_lambda``, and those that decide how the model is run.
        dataset: prepared data set that the model was trained on.
        workers: all of them must call this together; rank 0 chooses.
        log: log of the run.
        model: model, without a blend.
        writes: whether this run may write into the checkpoint, as one that trains may.

    Raises:
        UserError: the checkpoint is damaged.
        OSError: the choice cannot be written.
    """
    if config.evaluation.blend != "ease":
        return model
    chosen = model.blend
    ease = Ease(dataset.train, log.progress)
    if chosen is not None and config.evaluation.ease_lambda not in (None, chosen["ease_lambda"]):
        chosen = None
    if chosen is not None:
        lambda_ = chosen["ease_lambda"]
    elif config.evaluation.ease_lambda is not None:
        lambda_ = config.evaluation.ease_lambda
    else:
        lambda_ = on_rank_0(workers, lambda: choose_lambda(ease, dataset.validation))
    item_weights = ease.item_weights(lambda_)

    def choose() -> Mapping[str, float]:
        chosen = choose_blend(config, dataset, model, item_weights, lambda_, log.progress)
        if writes and model.checkpoint is not None:
            state = checkpoint.read_state(model.checkpoint)
            state = dataclasses.replace(state, blend=chosen)
            checkpoint.replace_state(model.checkpoint, state)
        return chosen

    origin = ", as chosen when the model was trained" if chosen else ""
    if chosen is None:
        chosen = on_rank_0(workers, choose)
    weight = chosen["model_weight"]
    log.say(f"Blend: {weight:g} x model + {1 - weight:g} x EASE (lambda {lambda_:g}){origin}.")
    return _blended(model, item_weights, chosen)


def choose_blend(
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
    item_weights: NDArray[np.float32],
    ease_lambda: float,
    progress: Progress,
) -> dict[str, float]:
    """Return the hyperparameters of the blend with the best NDCG@100 on the validation users.

    Args:
        config: flags that decide how the model is run.
        dataset: prepared data set.
        model: the model.
        item_weights: (I, I) of EASE.
        ease_lambda: lambda of EASE.
        progress: shows how many users are ranked.
    """
    users, batch = dataset.validation, config.evaluation.batch_size_validation
    worker = SingleWorker("1 worker")
    depth = min_ranking_depth(model.architecture.items)
    start = {"ease_lambda": float(ease_lambda), "model_weight": 1.0}
    blended = _blended(model, item_weights, start)
    ndcg = {}
    total = len(MODEL_WEIGHTS) * len(users.user_ids)
    with (
        progress("Choosing the weight of the blend", total) as bar,
        open_inference_session(config.execution, worker, blended, depth, batch) as (session, graph),
    ):
        (variable,) = tf.global_variables(MODEL_WEIGHT)
        for weight in MODEL_WEIGHTS:
            variable.load(weight, session)
            result = evaluate(session, graph, users, worker, batch, advance=bar.update)
            ndcg[weight] = result.metrics[SELECTION_METRIC].mean
    best = max(MODEL_WEIGHTS, key=lambda weight: (np.nan_to_num(ndcg[weight]), weight))
    return start | {"model_weight": best}


def _blended(
    model: TrainedModel, item_weights: NDArray[np.float32], chosen: Mapping[str, float]
) -> TrainedModel:
    assert model.weights is not None
    model_weight = np.array(chosen["model_weight"], np.float32)
    weights = {**model.weights, ITEM_WEIGHTS: item_weights, MODEL_WEIGHT: model_weight}
    return dataclasses.replace(model, weights=weights, blend=chosen)
