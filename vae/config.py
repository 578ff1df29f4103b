"""The command line of ``main.py``: one frozen configuration, checked before TensorFlow loads.

Every field of ``Config`` is one flag of the same name; its default, range and help stand beside it
and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vae.cli import flag, out_of_range, parse
from vae.errors import UserError
from vae.utils.interval import Interval

MODES = "modes (one or several)"
DATA = "data and files"
CHECKPOINTS = "checkpoints"
MODEL = "model and loss"
OPTIMISATION = "training"
EVALUATION = "evaluation and inference"
EXECUTION = "execution"

OUTPUT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_MAX_UNITS = 2**20
"""More would overflow TensorFlow's 32-bit shapes; no memory holds as many anyway."""

ACTIVATIONS = ("tanh", "relu", "sigmoid", "elu", "selu")
PRESETS: dict[str, dict[str, Any]] = {
    # Batch, epochs and steps of annealing are those of section 4.3 for ML-20M; the cap, Adam's rate
    # and its defaults, and a validation after each epoch are what the authors' program has. Sizes,
    # dropout and activation are this program's defaults.
    "liang": {
        "epochs": 200,
        "batch_size_train": 500,
        "lr": 0.001,
        "beta2": 0.999,
        "total_anneal_steps": 200_000,
        "anneal_cap": 0.2,
        "validation_step": 1,
    },
    # Chosen by validation NDCG@100 on data sets of 483 and 4,953 training users: docs/settings.md.
    "small": {
        "epochs": 60,
        "batch_size_train": 100,
        "lr": 0.001,
        "beta2": 0.999,
        "total_anneal_steps": 1_000,
        "anneal_cap": 0.2,
        "validation_step": 5,
    },
}
"""Values of flags that belong together, by the name that ``--preset`` gives them."""


def _preset_text(name: str) -> str:
    """A preset as one would type it."""
    return " ".join(f"--{option} {value}" for option, value in PRESETS[name].items())


@dataclass(frozen=True)
class Config:
    """Settings of one run.

    Raises:
        UserError: values out of range or flags that contradict each other, all named at once.
    """

    train: bool = flag(MODES, False, "train the model")
    test: bool = flag(MODES, False, "evaluate on the held-out test users")
    inference_benchmark: bool = flag(MODES, False, "measure inference latency and throughput")
    recommend: Path | Literal[True] | None = flag(
        MODES,
        None,
        "recommend items to the users of this file of histories, which has the columns of the "
        "ratings file (given without a file: to all prepared users)",
        bare=True,
    )
    similar_items: str | None = flag(MODES, None, "list the items nearest to the one with this id")
    export: Path | None = flag(
        MODES,
        None,
        "write a SavedModel for serving, with item ids and a model card, to this folder",
    )

    data_dir: Path = flag(DATA, Path("/data"), "folder that holds the prepared data sets")
    dataset: str = flag(DATA, "ml-20m", "name of the prepared data set")
    checkpoint_dir: Path | None = flag(
        DATA, None, "folder for checkpoints (none: the trained model is not kept)"
    )
    results_dir: Path | None = flag(
        DATA,
        None,
        "folder for args.json, results.json, epochs.csv, learning curves, report.html and traces "
        "(none: not written)",
    )
    tensorboard_dir: Path | None = flag(
        DATA, None, "folder for TensorBoard's summaries of each epoch (none: not written)"
    )
    log_path: Path = flag(DATA, Path("./vae_cf.log"), "file for the JSON log lines")
    output: Path | None = flag(
        DATA, None, "file for the recommendations: .csv, .tsv, .csv.gz, .tsv.gz or .parquet"
    )
    item_names: Path | None = flag(
        DATA, None, "CSV file with titles of items, beside the ratings file's column of items"
    )
    title_col: str = flag(DATA, "title", "column of titles in --item_names")

    resume: str = flag(
        CHECKPOINTS,
        "auto",
        "auto: train on from the newest checkpoint, if any; never: refuse a folder in use; "
        "must: refuse an empty one; or the path of the checkpoint to train on from",
    )
    restart: bool = flag(
        CHECKPOINTS, False, "start over; the folder's checkpoints move to replaced-1 inside it"
    )
    save_every: str = flag(
        CHECKPOINTS,
        "10m",
        "time between checkpoints, beside those of the best validations and of the end: in minutes "
        "(10m) or epochs (5e or 5)",
    )
    keep_checkpoints: int = flag(
        CHECKPOINTS, 2, "newest checkpoints to keep, beside the best one", ge=1
    )
    checkpoint: str = flag(
        CHECKPOINTS,
        "best",
        "what to test and benchmark: the best by validation NDCG@100, or the latest",
        choices=("best", "latest"),
    )

    hidden_dim: int = flag(MODEL, 600, "units of the hidden layers", ge=1, le=_MAX_UNITS)
    latent_dim: int = flag(MODEL, 200, "dimensions of the latent space", ge=1, le=_MAX_UNITS)
    activation: str = flag(
        MODEL, "tanh", "activation function of the hidden layers", choices=ACTIVATIONS
    )
    dropout: float = flag(
        MODEL, 0.5, "share of a user's items dropped from the input", ge=0, lt=1, affects="training"
    )
    total_anneal_steps: int = flag(
        MODEL,
        15000,
        "steps in which the KL term's weight would rise from 0 to 1",
        ge=1,
        affects="training",
    )
    anneal_cap: float = flag(MODEL, 0.1, "largest weight of the KL term", ge=0, affects="training")
    lam: float = flag(
        MODEL, 0.0, "weight of the L2 penalty on the kernels", ge=0, affects="training"
    )

    preset: str | None = flag(
        OPTIMISATION,
        None,
        "fill in flags that are not given; "
        f"liang, the paper's settings for MovieLens-20M: {_preset_text('liang')}; "
        f"small, for fewer than 10,000 users: {_preset_text('small')}",
        choices=tuple(PRESETS),
    )
    epochs: int = flag(OPTIMISATION, 400, "epochs to train", ge=1)
    batch_size_train: int = flag(
        OPTIMISATION,
        24576,
        "users in a global training batch (all workers together)",
        ge=1,
        affects="order",
    )
    lr: float = flag(OPTIMISATION, 0.004, "Adam's learning rate", ge=0, affects="training")
    beta1: float = flag(OPTIMISATION, 0.90, "Adam's beta1", ge=0, lt=1, affects="training")
    beta2: float = flag(OPTIMISATION, 0.90, "Adam's beta2", ge=0, lt=1, affects="training")
    validation_step: int = flag(
        OPTIMISATION, 50, "epochs between two validations", ge=1, affects="training"
    )
    early_stop: int = flag(
        OPTIMISATION,
        0,
        "validations without a better NDCG@100 to stop after (0: never)",
        ge=0,
    )
    warm_up_epochs: int = flag(
        OPTIMISATION, 5, "first epochs to leave out of the mean throughput", ge=0
    )

    batch_size_validation: int = flag(
        EVALUATION, 10000, "users in a batch of validation and testing", ge=1
    )
    inference_batch_sizes: str = flag(
        EVALUATION, "1", "users of a query in the inference benchmark, e.g. 1,64,512"
    )
    top_results: int = flag(EVALUATION, 100, "items to recommend to a user", ge=1)
    export_dtype: str = flag(
        EVALUATION,
        "float32",
        "type of the exported model's last layer; bfloat16 halves it",
        choices=("float32", "bfloat16"),
    )

    amp: bool = flag(
        EXECUTION,
        False,
        "train and benchmark in float16 on GPUs, in bfloat16 on CPUs that have it",
        affects="training",
    )
    no_tf32: bool = flag(
        EXECUTION, False, "keep GPUs from rounding float32 matmuls to TF32", affects="training"
    )
    fp16_allreduce: bool = flag(
        EXECUTION, False, "send gradients between workers as float16", affects="training"
    )
    xla: bool = flag(EXECUTION, False, "compile the graph with XLA", affects="training")
    trace: bool = flag(EXECUTION, False, "save a timeline of one step for chrome://tracing")
    seed: int = flag(EXECUTION, 0, "seed of everything random", ge=0, le=2**31 - 1, affects="order")

    @property
    def modes_of_a_model(self) -> list[str]:
        """The flags given that need a trained model; the benchmark does with random weights."""
        given = {
            "--test": self.test,
            "--recommend": self.recommend is not None,
            "--similar_items": self.similar_items is not None,
            "--export": self.export is not None,
        }
        return [mode for mode, asked in given.items() if asked]

    @property
    def loads_a_model(self) -> bool:
        """Whether weights are read from a checkpoint to test or use them."""
        used = bool(self.modes_of_a_model) or self.inference_benchmark
        return self.checkpoint_dir is not None and used

    @property
    def benchmark_batch_sizes(self) -> tuple[int, ...]:
        """``inference_batch_sizes`` as numbers."""
        return tuple(int(size) for size in self.inference_batch_sizes.split(","))

    @property
    def save_interval(self) -> Interval:
        """``save_every`` as an interval."""
        return Interval.parse(self.save_every)

    def trace_path(self, what: str) -> Path:
        """Where ``--trace`` puts the timeline of ``what``."""
        return (self.results_dir or Path()) / f"timeline_{what}.json"

    @property
    def trace_paths(self) -> list[Path]:
        """The timelines that ``--trace`` asks for."""
        traced = {"train": self.train, "inference": self.inference_benchmark}
        return [self.trace_path(what) for what, asked in traced.items() if self.trace and asked]

    def __post_init__(self) -> None:
        problems = [*out_of_range(self), *self._contradictions()]
        if problems:
            raise UserError("; ".join(problems) + ".")

    def _contradictions(self) -> Iterator[str]:
        if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", self.inference_batch_sizes):
            yield (
                f"--inference_batch_sizes {self.inference_batch_sizes!r} is no list of numbers, "
                "give e.g. 1,64,512"
            )
        if not (self.train or self.inference_benchmark or self.modes_of_a_model):
            yield (
                "nothing to do, give --train, --test, --inference_benchmark, --recommend, "
                "--similar_items or --export"
            )
        if self.modes_of_a_model and not self.train and self.checkpoint_dir is None:
            yield (
                f"{self.modes_of_a_model[0]} needs a trained model, give --checkpoint_dir or add "
                "--train"
            )
        if self.early_stop and not self.train:
            yield "--early_stop is for training, add --train"
        if self.trace and not (self.train or self.inference_benchmark):
            yield "--trace is for training and the benchmark, add --train or --inference_benchmark"
        yield from self._contradictions_of_recommending()
        yield from self._contradictions_of_exporting()
        yield from self._contradictions_of_resumption()

    def _contradictions_of_recommending(self) -> Iterator[str]:
        if (self.recommend is None) != (self.output is None):
            given, missing = (
                ("--recommend", "--output") if self.output is None else ("--output", "--recommend")
            )
            yield f"{given} needs {missing} as well"
        users_of_titles = (self.recommend, self.similar_items, self.export)
        if self.item_names is not None and all(mode is None for mode in users_of_titles):
            yield "--item_names is for --recommend, --similar_items and --export, give one of them"
        if self.output is not None and not self.output.name.endswith(OUTPUT_SUFFIXES):
            yield f"--output {self.output}: the name should end in {', '.join(OUTPUT_SUFFIXES)}"
        for name in ("recommend", "item_names"):
            path = getattr(self, name)
            if self.output is not None and isinstance(path, Path) and _same(self.output, path):
                yield f"--output {self.output}: would replace the file of --{name}, name another"
        if self.export is not None and re.search(r"[\[\\]", str(self.export.absolute())):
            yield (
                f"--export {self.export.absolute()}: TensorFlow takes '[' and '\\' in a path for a "
                "pattern and could not load the model from there; name another folder"
            )

    def _contradictions_of_exporting(self) -> Iterator[str]:
        """The folder appears as a whole, at the end: nothing else may have been written there."""
        if self.export is None:
            return
        folder = os.path.realpath(self.export)
        for name in ("checkpoint_dir", "results_dir", "tensorboard_dir", "log_path", "output"):
            path = getattr(self, name)
            if path is not None and Path(os.path.realpath(path)).is_relative_to(folder):
                yield f"--export {self.export}: --{name} {path} lies there, name another folder"

    def _contradictions_of_resumption(self) -> Iterator[str]:
        try:
            Interval.parse(self.save_every)
        except ValueError as error:
            yield f"--save_every {error}, give minutes (10m) or epochs (5e or 5)"
        if self.checkpoint == "latest" and self.checkpoint_dir is None:
            yield "--checkpoint latest needs a folder of checkpoints, give --checkpoint_dir"
        asked = [
            *([f"--resume {self.resume}"] if self.resume != "auto" else []),
            *(["--restart"] if self.restart else []),
        ]
        if len(asked) > 1:
            yield f"{asked[0]} and --restart contradict each other, give one of them"
        if asked and not self.train:
            yield f"{asked[0]} is for training, add --train"
        if asked and self.checkpoint_dir is None:
            yield f"{asked[0]} needs a folder of checkpoints, give --checkpoint_dir"


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file."""
    return os.path.realpath(one) == os.path.realpath(other)


def parse_flags(arguments: Sequence[str] | None = None) -> Config:
    """The configuration that the command line asks for.

    Raises:
        UserError: an unknown flag, a value of the wrong type or out of range, a contradiction.
    """
    return parse(
        Config,
        "main.py",
        "Train a variational autoencoder for collaborative filtering in TensorFlow",
        arguments,
        PRESETS,
    )
