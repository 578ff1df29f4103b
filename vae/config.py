"""The command line of ``main.py``: one frozen dataclass, checked before TensorFlow is imported.

Each field of ``Config`` is the flag of the same name, with its default, range and help text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vae.cli import (
    FlagError,
    Paths,
    flag,
    out_of_range,
    overwritten,
    parse,
    useless,
    without_effect,
)
from vae.errors import UserError

MODES = "modes (one or several)"
DATA = "data and files"
CHECKPOINTS = "checkpoints"
MODEL = "model and loss"
OPTIMISATION = "training"
EVALUATION = "evaluation and inference"
EXECUTION = "execution"

OUTPUT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_RESULTS = re.compile(r"(args|results)\.json|epochs\.csv|report\.html|\w+\.png")
"""Names of the files in ``--results_dir``."""
_MAX_UNITS = 2**20
"""More units would overflow TensorFlow's 32-bit shapes."""
MAX_EXPLAINED = 100
_MAX_MINUTES = 525_600
"""A year."""
_MODEL_MODES = ("test", "recommend", "similar_items", "export_items", "export")
"""Modes that need a trained model; the inference benchmark can use random weights."""
_ANNEALING = ("total_anneal_steps", "anneal_cap")
_TITLE_MODES = ("recommend", "similar_items", "export_items", "export")
"""Modes that show item titles."""

ACTIVATIONS = ("tanh", "relu", "sigmoid", "elu", "selu")
ENCODERS = {
    "tanh": "Mult-VAE (Liang et al. 2018, arXiv:1802.05814)",
    "dense": "RecVAE (Shenbin et al. 2020, arXiv:1912.11160)",
}
"""The papers that the encoders are from, by their names."""
DECODERS = ("deep", "linear")
PRIORS = ("normal", "composite")
BASELINES = {"popularity": "most popular", "ease": "EASE", "itemknn": "item-kNN"}
"""Titles of the baselines by their names."""
COMPARISONS = BASELINES | {"unblended": "model alone"}
"""Titles of what a tested model is compared with: the baselines, and itself without ``--blend``."""
PRESETS: dict[str, dict[str, Any]] = {
    # Batch size, epochs and annealing steps: section 4.3 of the paper, for ML-20M. Annealing cap,
    # Adam's learning rate and beta2, validation after each epoch: the authors' code. Layer sizes,
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
    # Selected by validation NDCG@100 on MovieLens-1M, see docs/settings.md.
    "recvae": {
        "model": "recvae",
        "epochs": 200,
        "batch_size_train": 500,
        "lr": 0.0005,
        "beta2": 0.999,
        "validation_step": 5,
    },
    # Selected by validation NDCG@100 on data sets of 483 and 4,953 training users, see
    # docs/settings.md.
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
"""Values of flags, by the name of the preset; a flag that is given takes precedence."""

MODELS: dict[str, dict[str, Any]] = {
    "multvae": {"encoder": "tanh", "decoder": "deep", "prior": "normal", "kl_per_item": 0.0},
    # Gamma: the value of Shenbin et al. for MovieLens-20M.
    "recvae": {"encoder": "dense", "decoder": "linear", "prior": "composite", "kl_per_item": 0.005},
}
"""Values of flags, by the name of the model; a flag that is given takes precedence."""

MODEL_FLAGS = (
    *("model", "encoder", "decoder", "prior", "activation"),
    *("hidden_dim", "latent_dim", "kl_per_item"),
)
"""Flags that a checkpoint knows: what is not given is as it was when its model was trained."""

_INTERVAL = re.compile(r"(?P<minutes>\d{1,9}(\.\d+)?)m|(?P<epochs>\d{1,9})e?", re.ASCII)


@dataclass(frozen=True)
class Interval:
    """Interval between checkpoints in epochs or in minutes; the other attribute is None."""

    epochs: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Parse minutes (``10m``) or epochs (``5e`` or ``5``).

        Raises:
            ValueError: the text is not an interval, or the interval is zero.
        """
        match = _INTERVAL.fullmatch(text)
        if match and match["epochs"] and int(match["epochs"]):
            return cls(epochs=int(match["epochs"]))
        if match and match["minutes"] and float(match["minutes"]):
            return cls(minutes=float(match["minutes"]))
        raise ValueError(
            f"{text!r} is not a positive interval in minutes (10m) or epochs (5e or 5)"
        )

    def epochs_are_over(self, epoch: int) -> bool:
        """Return whether an interval ends after this epoch, counted from 1."""
        return self.epochs is not None and epoch % self.epochs == 0

    def minutes_are_over(self, seconds: float) -> bool:
        """Return whether so many seconds are an interval or more."""
        return self.minutes is not None and seconds >= 60 * self.minutes


def flags_text(values: Mapping[str, Any]) -> str:
    """Return flags as they are given on a command line."""
    return " ".join(f"--{option} {value}" for option, value in values.items())


@dataclass(frozen=True)
class Config:
    """Settings of one run.

    Raises:
        UserError: values are out of range or flags contradict each other; names all of them.
    """

    train: bool = flag(MODES, False, "train the model")
    test: bool = flag(MODES, False, "evaluate on the held-out test users")
    inference_benchmark: bool = flag(MODES, False, "measure inference latency and throughput")
    recommend: Path | Literal[True] | None = flag(
        MODES,
        None,
        "recommend items to the users in this file of histories, which has the columns of the "
        "ratings file (without a file: to all prepared users)",
        bare=True,
    )
    similar_items: str | None = flag(
        MODES, None, "list the items most similar to the one with this id"
    )
    export_items: Path | None = flag(
        MODES,
        None,
        "write a vector for each item, with its id and title, to this .parquet file",
    )
    export: Path | None = flag(
        MODES,
        None,
        "write a SavedModel for serving, with item ids and a model card, to this folder",
    )

    data_dir: Path = flag(DATA, Path("/data"), "folder that holds the prepared data sets")
    dataset: str = flag(DATA, "ml-20m", "name of the prepared data set")
    checkpoint_dir: Path | None = flag(
        DATA, None, "folder for checkpoints (none: the trained model is discarded)"
    )
    results_dir: Path | None = flag(
        DATA,
        None,
        "folder for args.json, results.json, epochs.csv, learning curves, report.html and traces "
        "(none: not written)",
    )
    tensorboard_dir: Path | None = flag(
        DATA,
        None,
        "folder for TensorBoard summaries of each epoch (none: not written)",
        needs=("train",),
    )
    log_path: Path = flag(DATA, Path("./vae_cf.log"), "file for the JSON log lines")
    output: Path | None = flag(
        DATA,
        None,
        "file for the recommendations: .csv, .tsv, .csv.gz, .tsv.gz or .parquet",
        needs=("recommend",),
    )
    allow: Path | None = flag(
        DATA,
        None,
        "file of the only items to recommend: item ids, or user and item ids, with the names of "
        "the ratings file's columns",
        needs=("recommend",),
    )
    deny: Path | None = flag(
        DATA,
        None,
        "file of items not to recommend, like that of --allow",
        needs=("recommend",),
    )
    item_names: Path | None = flag(
        DATA, None, "file of item titles, in any format of ratings files", needs=_TITLE_MODES
    )
    item_names_col: str | None = flag(
        DATA,
        None,
        "column of ids in --item_names (none: the item column of the ratings)",
        needs=("item_names",),
    )
    title_col: str = flag(
        DATA,
        "title",
        "column of titles in --item_names; both are numbers from 0 if it has no header row",
        needs=("item_names",),
    )

    resume: str = flag(
        CHECKPOINTS,
        "auto",
        "auto: resume the latest checkpoint if there is one; never: fail if there is one; "
        "must: fail if there is none; or the path of the checkpoint to resume from",
        needs=("train",),
    )
    restart: bool = flag(
        CHECKPOINTS,
        False,
        "start over; existing checkpoints are moved to the subfolder replaced-1",
        needs=("train",),
    )
    warm_start: Path | None = flag(
        CHECKPOINTS,
        None,
        "checkpoint, or folder of checkpoints, of a model of other users and items, from which a "
        "new run takes the weights of the items that it has too",
        needs=("train",),
    )
    save_every: str = flag(
        CHECKPOINTS,
        "10m",
        "interval between checkpoints in minutes (10m) or epochs (5e or 5); the best and the final "
        "ones are saved in any case",
        needs=("train",),
    )
    keep_checkpoints: int = flag(
        CHECKPOINTS,
        2,
        "latest checkpoints to keep, besides the best one",
        ge=1,
        needs=("train",),
    )
    checkpoint: str = flag(
        CHECKPOINTS,
        "best",
        "checkpoint to use after training: the best by validation NDCG@100, or the latest",
        choices=("best", "latest"),
        needs=(*_MODEL_MODES, "inference_benchmark"),
    )

    check_replicas: int | None = flag(
        CHECKPOINTS,
        None,
        "epochs between comparisons of the workers' weights, which must be equal (0: never; by "
        "default before each checkpoint)",
        ge=0,
        needs=("train",),
    )

    model: str = flag(
        MODEL,
        "multvae",
        "defaults for flags that are not given; "
        f"multvae, the model of Liang et al.: {flags_text(MODELS['multvae'])}; "
        f"recvae, that of Shenbin et al.: {flags_text(MODELS['recvae'])}",
        choices=tuple(MODELS),
    )
    encoder: str = flag(
        MODEL,
        "tanh",
        "tanh: one hidden layer of --activation; dense: five swish layers with skip connections",
        choices=ENCODERS,
    )
    decoder: str = flag(
        MODEL,
        "deep",
        "deep: one hidden layer of --activation; linear: none",
        choices=DECODERS,
    )
    prior: str = flag(
        MODEL,
        "normal",
        "normal: the standard normal distribution; composite: its mixture with the user's latent "
        "distribution an epoch ago and a wide one",
        choices=PRIORS,
    )
    hidden_dim: int = flag(MODEL, 600, "units of the hidden layers", ge=1, le=_MAX_UNITS)
    latent_dim: int = flag(MODEL, 200, "dimensions of the latent space", ge=1, le=_MAX_UNITS)
    activation: str = flag(
        MODEL, "tanh", "activation function of the hidden layers", choices=ACTIVATIONS
    )
    dropout: float = flag(
        MODEL,
        0.5,
        "fraction of a user's items dropped from the input",
        ge=0,
        lt=1,
        affects="training",
    )
    kl_per_item: float = flag(
        MODEL,
        0.0,
        "weight of a user's KL term per item of the history, without annealing (0: the same weight "
        "for all users, annealed)",
        ge=0,
        affects="training",
    )
    total_anneal_steps: int = flag(
        MODEL,
        15000,
        "steps in which the weight of the KL term would rise from 0 to 1",
        ge=1,
        affects="training",
    )
    anneal_cap: float = flag(MODEL, 0.1, "maximum weight of the KL term", ge=0, affects="training")
    lam: float = flag(
        MODEL, 0.0, "weight of the L2 penalty on the kernels", ge=0, affects="training"
    )

    preset: str | None = flag(
        OPTIMISATION,
        None,
        "defaults for flags that are not given; "
        f"liang, the paper's settings for MovieLens-20M: {flags_text(PRESETS['liang'])}; "
        f"small, for fewer than 10,000 users: {flags_text(PRESETS['small'])}; "
        f"recvae, the model of Shenbin et al.: {flags_text(PRESETS['recvae'])}",
        choices=tuple(PRESETS),
    )
    epochs: int = flag(OPTIMISATION, 400, "epochs to train", ge=1)
    batch_size_train: int = flag(
        OPTIMISATION,
        24576,
        "users per training batch, over all workers",
        ge=1,
        affects="order",
    )
    lr: float = flag(OPTIMISATION, 0.004, "Adam's learning rate", ge=0, affects="training")
    beta1: float = flag(OPTIMISATION, 0.90, "Adam's beta1", ge=0, lt=1, affects="training")
    beta2: float = flag(OPTIMISATION, 0.90, "Adam's beta2", ge=0, lt=1, affects="training")
    validation_step: int = flag(
        OPTIMISATION, 50, "epochs between validations", ge=1, affects="training"
    )
    early_stop: int = flag(
        OPTIMISATION,
        0,
        "stop after this many validations without improvement in NDCG@100 (0: never)",
        ge=0,
        needs=("train",),
    )
    warm_up_epochs: int = flag(
        OPTIMISATION, 5, "first epochs to exclude from the mean throughput", ge=0
    )

    batch_size_validation: int = flag(
        EVALUATION, 10000, "users per batch in validation and test", ge=1
    )
    inference_batch_sizes: str = flag(
        EVALUATION,
        "1",
        "users per query in the inference benchmark, e.g. 1,64,512",
        needs=("inference_benchmark",),
    )
    baselines: str = flag(
        EVALUATION,
        "popularity",
        "models to compare with in the test, e.g. popularity,ease,itemknn: the most popular items, "
        "EASE (Steck 2019) and item-kNN by cosine",
        needs=("test",),
    )
    ease_lambda: float | None = flag(
        EVALUATION,
        None,
        "L2 penalty of EASE (by default the best of a few values on the validation users)",
        ge=1e-3,
    )
    blend: str | None = flag(
        EVALUATION,
        None,
        "ease: mix the model's scores with those of EASE, with the weight that is best on the "
        "validation users; none: do not (by default the blend of the checkpoint, if it has one)",
        choices=("ease", "none"),
    )
    top_results: int = flag(EVALUATION, 100, "items to recommend per user", ge=1)
    explain: int = flag(
        EVALUATION,
        0,
        "items of the history to name beside each recommendation that speak most for it (0: none); "
        "each item of a history takes as long as recommending to one more user",
        ge=0,
        le=MAX_EXPLAINED,
        needs=("recommend",),
    )
    export_dtype: str = flag(
        EVALUATION,
        "float32",
        "type of the exported model's last layer; bfloat16 halves its size",
        choices=("float32", "bfloat16"),
        needs=("export",),
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
    stall_timeout: float = flag(
        EXECUTION,
        10.0,
        "minutes after which several workers end if one of them does not join, is silent, or no "
        "step ends (0: never)",
        ge=0,
        le=_MAX_MINUTES,
    )
    xla: bool = flag(EXECUTION, False, "compile the graph with XLA", affects="training")
    trace: bool = flag(
        EXECUTION,
        False,
        "save a timeline of one step for chrome://tracing",
        needs=("train", "inference_benchmark"),
    )
    seed: int = flag(
        EXECUTION, 0, "seed of all random numbers", ge=0, le=2**31 - 1, affects="order"
    )

    @property
    def modes_of_a_model(self) -> list[str]:
        """The given flags that need a trained model."""
        return [f"--{mode}" for mode in _MODEL_MODES if getattr(self, mode) not in (None, False)]

    @property
    def loads_a_model(self) -> bool:
        """Whether a checkpoint is loaded for testing or inference."""
        used = bool(self.modes_of_a_model) or self.inference_benchmark or self.blend == "ease"
        return self.checkpoint_dir is not None and used

    @property
    def uses_blend(self) -> bool:
        """Whether a blend in a checkpoint matters: one is neither chosen nor refused by a flag."""
        modes = (self.train, self.test, self.recommend, self.export, self.inference_benchmark)
        return self.blend is None and any(modes)

    @property
    def benchmark_batch_sizes(self) -> tuple[int, ...]:
        """``inference_batch_sizes`` as integers."""
        return tuple(int(size) for size in self.inference_batch_sizes.split(","))

    @property
    def layers(self) -> dict[str, Any]:
        """The flags that are fields of ``Architecture``."""
        names = ("hidden_dim", "latent_dim", "activation", "encoder", "decoder", "prior")
        return {name: getattr(self, name) for name in names}

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """``baselines`` as names."""
        return tuple(self.baselines.split(","))

    @property
    def fits_ease(self) -> bool:
        """Whether the run fits EASE."""
        return self.blend == "ease" or (self.test and "ease" in self.baseline_names)

    @property
    def save_interval(self) -> Interval:
        """``save_every`` as an interval."""
        return Interval.parse(self.save_every)

    def trace_path(self, mode: str) -> Path:
        """Return the file of the timeline of a mode: ``"train"`` or ``"inference"``."""
        return (self.results_dir or Path()) / f"timeline_{mode}.json"

    @property
    def trace_paths(self) -> list[Path]:
        """The timelines that the run writes."""
        modes = {"train": self.train, "inference": self.inference_benchmark}
        return [self.trace_path(mode) for mode, runs in modes.items() if self.trace and runs]

    def __post_init__(self) -> None:
        problems = [*out_of_range(self), *without_effect(self), *self._contradictions()]
        if problems:
            raise FlagError(problems)

    def _contradictions(self) -> Iterator[str]:
        if not re.fullmatch(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", self.inference_batch_sizes):
            yield (
                f"--inference_batch_sizes: {self.inference_batch_sizes!r} is not a comma-separated "
                "list of integers, e.g. 1,64,512"
            )
        if not set(self.baseline_names) <= set(BASELINES):
            yield (
                f"--baselines: {self.baselines!r} is not a comma-separated list of "
                f"{', '.join(BASELINES)}"
            )
        if self.ease_lambda is not None and not self.fits_ease:
            yield "--ease_lambda has no effect without --blend, or --test and ease in --baselines"
        if not (self.train or self.inference_benchmark or self.modes_of_a_model):
            yield (
                "no mode selected; pass at least one of --train, --test, --inference_benchmark, "
                "--recommend, --similar_items, --export_items and --export"
            )
        if self.modes_of_a_model and not self.train and self.checkpoint_dir is None:
            mode = self.modes_of_a_model[0]
            yield f"{mode} needs a trained model; pass --checkpoint_dir or --train"
        if self.activation != "tanh" and (self.encoder, self.decoder) == ("dense", "linear"):
            yield (
                f"--activation {self.activation} has no effect with --encoder dense and --decoder "
                "linear"
            )
        if self.kl_per_item:
            preset = PRESETS.get(self.preset or "", {})
            names = (n for n in _ANNEALING if getattr(self, n) != preset.get(n))
            yield from useless(self, names, "with --kl_per_item, which is not annealed")
        if self.blend is not None and not self.train and self.checkpoint_dir is None:
            yield "--blend needs a trained model; pass --checkpoint_dir or --train"
        if self.blend == "ease" and self.explain:
            yield (
                "--explain and --blend ease are mutually exclusive: it explains the model alone; "
                "pass --blend none"
            )
        yield from self._contradictions_of_files()
        yield from self._contradictions_of_checkpoints()

    def _contradictions_of_files(self) -> Iterator[str]:
        if self.recommend is not None and self.output is None:
            yield "--recommend needs --output"
        if self.output is not None and not self.output.name.endswith(OUTPUT_SUFFIXES):
            yield f"--output {self.output}: the name must end in {', '.join(OUTPUT_SUFFIXES)}"
        if self.export_items is not None and self.export_items.suffix != ".parquet":
            yield f"--export_items {self.export_items}: the name must end in .parquet"
        yield from overwritten(*self._paths())
        if self.export is not None:
            yield from self._contradictions_of_export(str(self.export.absolute()))

    def _contradictions_of_export(self, folder: str) -> Iterator[str]:
        if re.search(r"[\[\\]", folder):
            yield (
                f"--export {folder}: TensorFlow reads '[' and '\\' in a path as a pattern and "
                "could not load the model; name another folder"
            )
        if re.search("[\ud800-\udfff]", folder):  # bytes that are not UTF-8
            yield f"--export {folder}: TensorFlow needs a path in UTF-8; name another folder"

    def _paths(self) -> Iterator[Paths]:
        """Yield the outputs, the folders of outputs and the inputs, with their flags."""

        def named(*names: str) -> Paths:
            paths = ((f"--{name}", getattr(self, name)) for name in names)
            return [(flag, path if isinstance(path, Path) else None) for flag, path in paths]

        traces = [("--trace", path) for path in self.trace_paths]
        # The folder of --export is created as a whole, at the end.
        yield [*named("export", "log_path", "output", "export_items"), *traces]
        yield named("checkpoint_dir", "results_dir", "tensorboard_dir")
        prepared = self.data_dir / self.dataset / "preprocessed"
        results = [
            ("--results_dir", self.results_dir / path.name)
            for path in (self.log_path, self.output)
            if self.results_dir is not None and path is not None and _RESULTS.fullmatch(path.name)
        ]
        read = named("recommend", "allow", "deny", "item_names")
        yield [*read, *results, ("--data_dir", prepared)]

    def _contradictions_of_checkpoints(self) -> Iterator[str]:
        try:
            Interval.parse(self.save_every)
        except ValueError as error:
            yield f"--save_every: {error}"
        if self.resume != "auto" and self.restart:
            yield f"--resume {self.resume} and --restart are mutually exclusive"
        if self.checkpoint_dir is None:
            given = {
                f"--resume {self.resume}": self.resume != "auto",
                "--restart": self.restart,
                "--checkpoint latest": self.checkpoint == "latest",
            }
            for name in (name for name, is_given in given.items() if is_given):
                yield f"{name} needs --checkpoint_dir"
            if self.train:
                names = ("save_every", "keep_checkpoints")
                yield from useless(self, names, "without --checkpoint_dir")
        if self.resume not in ("auto", "never"):
            yield from useless(self, ("warm_start",), f"with --resume {self.resume}")


def parse_flags(
    arguments: Sequence[str] | None = None, of_checkpoint: Mapping[str, Any] | None = None
) -> Config:
    """Return the configuration of a command line, by default that of this process.

    Args:
        arguments: command line; None for that of this process.
        of_checkpoint: values of flags that are not given, see
            ``checkpoint_manager.flags_of_checkpoint``.

    Raises:
        UserError: a flag is unknown, a value has the wrong type or is out of range, or flags
            contradict each other.
    """
    try:
        return parse(
            Config,
            "main.py",
            "Train a variational autoencoder for collaborative filtering in TensorFlow",
            arguments,
            {"preset": PRESETS, "model": MODELS},
            of_checkpoint,
        )
    except UserError as error:
        if not of_checkpoint:
            raise
        # The flags that were given are right by themselves.
        taken = flags_text(of_checkpoint)
        raise UserError(f"{str(error)[:-1]}; the checkpoint has {taken}.") from None
