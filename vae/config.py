"""The command line of ``main.py``: frozen dataclasses, checked before TensorFlow is imported.

Each field of a group is the flag of the same name, with its default, range and help text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vae import cli
from vae.errors import UserError

flag = partial(cli.flag, None)
"""A flag whose heading in ``--help`` is the name of its group in ``Config``."""

OUTPUT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_RESULTS = re.compile(r"(args|results)\.json|epochs\.csv|report\.html|\w+\.png")
"""Names of the files in ``--results_dir``."""
ITEM_MULTIPLE = 8
"""Tensor cores need dimensions in multiples of eight; the padded items are masked."""
DENSE_LAYERS = 5
"""Hidden layers of RecVAE's encoder."""
_MAX_UNITS = 2**20
"""More units would overflow TensorFlow's 32-bit shapes."""
MAX_EXPLAINED = 100
_MAX_MINUTES = 525_600
"""A year."""
_MODEL_MODES = (
    "test", "recommend", "score", "similar_items", "export_items", "export_users", "export"
)  # fmt: skip
"""Modes that need a trained model; the inference benchmark can use random weights."""
_ANNEALING = ("total_anneal_steps", "anneal_cap")
_SAVING = ("resume", "restart", "checkpoint", "save_every", "keep_checkpoints")
_TITLE_MODES = ("recommend", "score", "similar_items", "export_items", "export")
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
        "epochs": 200, "batch_size_train": 500, "lr": 0.001, "beta2": 0.999,
        "total_anneal_steps": 200_000, "anneal_cap": 0.2, "validation_step": 1,
    },
    # Selected by validation NDCG@100 on MovieLens-1M, see docs/settings.md.
    "recvae": {
        "model": "recvae", "epochs": 200, "batch_size_train": 500, "lr": 0.0005, "beta2": 0.999,
        "validation_step": 5,
    },
    # The same on data sets of 483 and 4,953 training users.
    "small": {
        "epochs": 60, "batch_size_train": 100, "lr": 0.001, "beta2": 0.999,
        "total_anneal_steps": 1_000, "anneal_cap": 0.2, "validation_step": 5,
    },
    # The same on these and on parts of them; auto_values() has what depends on the data.
    "auto": {
        "model": "recvae", "epochs": 200, "lr": 0.001, "beta2": 0.999, "validation_step": 5,
    },
}  # fmt: skip
"""Values of flags, by the name of the preset."""
MODELS: dict[str, dict[str, Any]] = {
    "multvae": {"encoder": "tanh", "decoder": "deep", "prior": "normal", "kl_per_item": 0.0},
    # Gamma: the value of Shenbin et al. for MovieLens-20M.
    "recvae": {"encoder": "dense", "decoder": "linear", "prior": "composite", "kl_per_item": 0.005},
}
"""Values of flags, by the name of the model."""
NAMED_VALUES = {"preset": PRESETS, "model": MODELS}
"""Values of flags that are not given, by the flag and the name that stand for them."""

_INTERVAL = re.compile(r"(?=.*[1-9])(\d{1,9}(\.\d+)?m|\d{1,9}e?)", re.ASCII)
"""Minutes (``10m``) or epochs (``5e`` or ``5``), not zero."""


@dataclass(frozen=True)
class Interval:
    """Interval between checkpoints in epochs or in minutes; the other attribute is None."""

    epochs: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Return the interval that a valid ``--save_every`` means."""
        number = text.rstrip("em")
        return cls(minutes=float(number)) if text.endswith("m") else cls(epochs=int(number))

    def epochs_are_over(self, epoch: int) -> bool:
        """Return whether an interval ends after this epoch, counted from 1."""
        return self.epochs is not None and epoch % self.epochs == 0

    def minutes_are_over(self, seconds: float) -> bool:
        """Return whether so many seconds are an interval or more."""
        return self.minutes is not None and seconds >= 60 * self.minutes


@dataclass(frozen=True)
class Modes:
    """What the run does, in this order."""

    train: bool = flag(False, "train the model")
    test: bool = flag(False, "evaluate on the held-out test users")
    inference_benchmark: bool = flag(False, "measure inference latency and throughput")
    recommend: Path | Literal[True] | None = flag(
        None,
        "recommend items to the users in this file of histories (without a file: to all "
        "prepared users)",
        bare=True,
    )
    score: Path | None = flag(
        None,
        "write the score and the rank of each user and item in this file, by the histories in "
        "that of --recommend (none: as prepared)",
    )
    similar_items: str | None = flag(None, "list the items most similar to the one with this id")
    export_items: Path | None = flag(
        None, "write id, title, vector and bias of each item to this .parquet file"
    )
    export_users: Path | None = flag(
        None,
        "write id and latent mean of each user to this .parquet file, by the histories in that "
        "of --recommend (none: as prepared)",
    )
    export: Path | None = flag(
        None, "write a SavedModel for serving, with item ids and a model card, to this folder"
    )

    check: bool = flag(False, "check everything and print the plan; train and write nothing")

    @property
    def of_a_model(self) -> list[str]:
        """The given flags that need a trained model."""
        return [f"--{mode}" for mode in _MODEL_MODES if getattr(self, mode) not in (None, False)]


@dataclass(frozen=True)
class Files:
    """Data, inputs and outputs."""

    data_dir: Path = flag(Path("/data"), "folder that holds the prepared data sets")
    dataset: str = flag("ml-20m", "name of the prepared data set")
    checkpoint_dir: Path | None = flag(
        None, "folder for checkpoints (none: the trained model is discarded)"
    )
    results_dir: Path | None = flag(
        None,
        "folder for args.json, results.json, epochs.csv, learning curves and the report (none: "
        "not written)",
    )
    tensorboard_dir: Path | None = flag(
        None, "folder for TensorBoard summaries of each epoch (none: not written)", needs=("train",)
    )
    log_path: Path = flag(Path("./vae_cf.log"), "file for the JSON log lines")
    output: Path | None = flag(
        None,
        "file for the recommendations or scores: .csv, .tsv, .csv.gz, .tsv.gz or .parquet",
        needs=("recommend", "score"),
    )
    allow: Path | None = flag(
        None,
        "file of the only items to recommend: item ids, or user and item ids, as in the "
        "ratings file",
        needs=("recommend",),
    )
    deny: Path | None = flag(
        None, "file of items not to recommend, like that of --allow", needs=("recommend",)
    )
    item_names: Path | None = flag(
        None, "file of item titles, in any format of ratings files", needs=_TITLE_MODES
    )
    item_names_col: str | None = flag(
        None,
        "column of ids in --item_names (none: the item column of the ratings)",
        needs=("item_names",),
    )
    title_col: str = flag(
        "title",
        "column of titles in --item_names, as a number from 0 if it has no header row",
        needs=("item_names",),
    )


@dataclass(frozen=True)
class Checkpoints:
    """Where training starts, and which checkpoints it leaves."""

    resume: str = flag(
        "auto",
        "auto: resume if there is a checkpoint; never: fail if there is one; must: fail if there "
        "is none; or a checkpoint's path",
        needs=("train",),
    )
    restart: bool = flag(
        False,
        "start over; existing checkpoints are moved to the subfolder replaced-1",
        needs=("train",),
    )
    warm_start: Path | None = flag(
        None,
        "initialise from this checkpoint, or folder of checkpoints; items are matched by id",
        needs=("train",),
    )
    save_every: str = flag(
        "10m",
        "interval between checkpoints in minutes (10m) or epochs (5e or 5), besides the best "
        "and the final one",
        needs=("train",),
    )
    keep_checkpoints: int = flag(
        2, "latest checkpoints to keep, besides the best one", ge=1, needs=("train",)
    )
    checkpoint: str = flag(
        "best",
        "checkpoint to use after training: the best by validation NDCG@100, or the latest",
        choices=("best", "latest"),
        needs=(*_MODEL_MODES, "inference_benchmark"),
    )
    check_replicas: int | None = flag(
        None,
        "epochs between checks that the workers' weights are equal (0: never; none: before "
        "each checkpoint)",
        ge=0,
        needs=("train",),
    )

    @property
    def save_interval(self) -> Interval:
        """``save_every`` as an interval."""
        return Interval.parse(self.save_every)


@dataclass(frozen=True)
class Presets:
    """Names that stand for values of several flags."""

    model: str = flag(
        "multvae",
        "defaults of the model's flags: multvae (Liang et al. 2018) or recvae (Shenbin et al. "
        "2020), see below",
        choices=tuple(MODELS),
    )
    preset: str | None = flag(
        None,
        "defaults for training: chosen for the data (auto), the paper's (liang), for few users "
        "(small) or for RecVAE (recvae), see below; auto also chooses the batch, --early_stop "
        "and --blend",
        choices=tuple(PRESETS),
    )


@dataclass(frozen=True)
class Architecture:
    """Shapes of the weights, and the layers that they belong to.

    Attributes:
        items: I before padding, the number of items of the data set; 0 until it is open.
        hidden_dim: H, units of the hidden layers of encoder and decoder.
        latent_dim: Z, dimensions of the latent space.
    """

    items: int = 0

    hidden_dim: int = flag(600, "units of the hidden layers", ge=1, le=_MAX_UNITS)
    latent_dim: int = flag(200, "dimensions of the latent space", ge=1, le=_MAX_UNITS)
    activation: str = flag("tanh", "activation function of the hidden layers", choices=ACTIVATIONS)
    encoder: str = flag(
        "tanh",
        "tanh: one hidden layer of --activation; dense: five swish layers with skip connections",
        choices=ENCODERS,
    )
    decoder: str = flag(
        "deep", "deep: one hidden layer of --activation; linear: none", choices=DECODERS
    )
    prior: str = flag(
        "normal",
        "normal: the standard normal distribution; composite: its mixture with earlier latent "
        "distributions",
        choices=PRIORS,
    )

    @property
    def padded_items(self) -> int:
        """I, the number of items padded to a multiple of ``ITEM_MULTIPLE``."""
        return math.ceil(self.items / ITEM_MULTIPLE) * ITEM_MULTIPLE

    @property
    def decoder_dim(self) -> int:
        """D, inputs of the item layer: the units of the deep decoder, or Z."""
        return self.hidden_dim if self.decoder == "deep" else self.latent_dim

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each layer by its name, input side first."""
        items, hidden, latent = self.padded_items, self.hidden_dim, self.latent_dim
        shapes = {"encoder/hidden": (items, hidden)}
        if self.encoder == "dense":
            shapes |= {f"encoder/hidden_{n}": (hidden, hidden) for n in range(2, DENSE_LAYERS + 1)}
        shapes["encoder/latent"] = (hidden, 2 * latent)
        if self.decoder == "deep":
            shapes["decoder/hidden"] = (latent, hidden)
        shapes["decoder/items"] = (self.decoder_dim, items)
        return shapes


MODEL_FLAGS = ("model", *cli.flags(Architecture), "kl_per_item")
"""Flags that a checkpoint knows: what is not given is as it was when its model was trained."""


@dataclass(frozen=True)
class Objective:
    """The loss and its regularisation."""

    dropout: float = flag(
        0.5, "fraction of a user's items dropped from the input", ge=0, lt=1, affects="training"
    )
    kl_per_item: float = flag(
        0.0,
        "weight of a user's KL term per item of the history, without annealing (0: annealed, "
        "equal for all)",
        ge=0,
        affects="training",
    )
    total_anneal_steps: int = flag(
        15000,
        "steps in which the weight of the KL term would rise from 0 to 1",
        ge=1,
        affects="training",
    )
    anneal_cap: float = flag(0.1, "maximum weight of the KL term", ge=0, affects="training")
    lam: float = flag(0.0, "weight of the L2 penalty on the kernels", ge=0, affects="training")


@dataclass(frozen=True)
class Training:
    """Optimiser, batches and validations."""

    epochs: int = flag(400, "epochs to train", ge=1)
    batch_size_train: int = flag(
        24576, "users per training batch, over all workers", ge=1, affects="order"
    )
    lr: float = flag(0.004, "Adam's learning rate", ge=0, affects="training")
    beta1: float = flag(0.90, "Adam's beta1", ge=0, lt=1, affects="training")
    beta2: float = flag(0.90, "Adam's beta2", ge=0, lt=1, affects="training")
    validation_step: int = flag(50, "epochs between validations", ge=1, affects="training")
    early_stop: int = flag(
        0,
        "stop after this many validations without improvement in NDCG@100 (0: never)",
        ge=0,
        needs=("train",),
    )
    warm_up_epochs: int = flag(5, "first epochs to exclude from the mean throughput", ge=0)


@dataclass(frozen=True)
class Evaluation:
    """Validation, test and inference."""

    batch_size_validation: int = flag(10000, "users per batch in validation and test", ge=1)
    inference_batch_sizes: str = flag(
        "1",
        "users per query in the inference benchmark, e.g. 1,64,512",
        needs=("inference_benchmark",),
    )
    baselines: str = flag(
        "popularity",
        "models to compare with in the test, e.g. popularity,ease,itemknn",
        needs=("test",),
    )
    ease_lambda: float | None = flag(
        None, "L2 penalty of EASE (none: chosen on the validation users)", ge=1e-3
    )
    ease_dropout: float | None = flag(
        None, "dropout of EASE's input (none: chosen on the validation users)", ge=0, lt=1
    )
    blend: str | None = flag(
        None,
        "ease: mix in EASE with the weight that is best on the validation users (none: as in "
        "the checkpoint)",
        choices=("ease", "none"),
    )
    top_results: int = flag(100, "items to recommend per user", ge=1)
    explain: int = flag(
        0,
        "history items to name beside each recommendation, those with the largest "
        "leave-one-out effect (0: none)",
        ge=0,
        le=MAX_EXPLAINED,
        needs=("recommend",),
    )
    export_dtype: str = flag(
        "float32",
        "type of the exported model's last layer; bfloat16 halves its size",
        choices=("float32", "bfloat16"),
        needs=("export",),
    )

    @property
    def benchmark_batch_sizes(self) -> tuple[int, ...]:
        """``inference_batch_sizes`` as integers."""
        return tuple(int(size) for size in self.inference_batch_sizes.split(","))

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """``baselines`` as names."""
        return tuple(self.baselines.split(","))


@dataclass(frozen=True)
class Execution:
    """How the machine computes."""

    amp: bool = flag(
        False,
        "train and benchmark in float16 on GPUs, in bfloat16 on CPUs that have it",
        affects="training",
    )
    no_tf32: bool = flag(
        False, "keep GPUs from rounding float32 matmuls to TF32", affects="training"
    )
    fp16_allreduce: bool = flag(
        False, "send gradients between workers as float16", affects="training"
    )
    parallel: str = flag(
        "users",
        "what the workers divide in training: the users of each batch, or the items and their "
        "weights",
        choices=("users", "items"),
        needs=("train",),
    )
    stall_timeout: float = flag(
        10.0,
        "minutes without a step, or waiting for a worker, after which several workers end (0: "
        "never)",
        ge=0,
        le=_MAX_MINUTES,
    )
    xla: bool = flag(False, "compile the graph with XLA", affects="training")
    trace: bool = flag(
        False,
        "save a timeline of one step for chrome://tracing",
        needs=("train", "inference_benchmark"),
    )
    seed: int = flag(0, "seed of all random numbers", ge=0, le=2**31 - 1, affects="order")

    @property
    def divides_items(self) -> bool:
        """Whether the workers divide the items in training."""
        return self.parallel == "items"


@dataclass(frozen=True)
class Config:
    """Settings of one run, in groups.

    Raises:
        UserError: values are out of range or flags contradict each other; names all of them.
    """

    modes: Modes = Modes()
    files: Files = Files()
    checkpoints: Checkpoints = Checkpoints()
    presets: Presets = Presets()
    model: Architecture = Architecture()
    objective: Objective = Objective()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    execution: Execution = Execution()

    @classmethod
    def of(cls, **flags: Any) -> Config:
        """Return the settings with these flags; the others have their defaults."""
        return cli.from_values(cls, flags)

    def having(self, **flags: Any) -> Config:
        """Return these settings with other values of some flags."""
        return cli.from_values(Config, cli.values_of(self) | flags)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether a checkpoint is loaded for testing or inference."""
        modes = self.modes
        used = modes.of_a_model or modes.inference_benchmark or self.evaluation.blend == "ease"
        return self.files.checkpoint_dir is not None and bool(used)

    @property
    def uses_blend(self) -> bool:
        """Whether a blend in a checkpoint matters: one is neither chosen nor refused by a flag."""
        modes = self.modes
        scores = modes.train, modes.test, modes.recommend, modes.score, modes.export
        return self.evaluation.blend is None and any((*scores, modes.inference_benchmark))

    @property
    def needs_ease(self) -> bool:
        """Whether the run fits EASE."""
        compared = self.modes.test and "ease" in self.evaluation.baseline_names
        return self.evaluation.blend == "ease" or compared

    @property
    def trace_paths(self) -> dict[str, Path]:
        """The timelines that the run writes, by mode."""
        modes = {"train": self.modes.train, "inference": self.modes.inference_benchmark}
        folder = self.files.results_dir or Path()
        traced = (mode for mode, runs in modes.items() if self.execution.trace and runs)
        return {mode: folder / f"timeline_{mode}.json" for mode in traced}

    def __post_init__(self) -> None:
        wrong = (phrase for phrase, is_wrong in self._contradictions().items() if is_wrong)
        problems = [*cli.out_of_range(self), *cli.without_effect(self), *wrong, *self._useless()]
        problems += cli.overwritten(*self.paths())
        if problems:
            raise cli.FlagError(problems)

    def _contradictions(self) -> dict[str, bool]:
        """Return what may be wrong with values, or with flags beside others, and whether it is."""
        modes, files, evaluation = self.modes, self.files, self.evaluation
        resume, save_every = self.checkpoints.resume, self.checkpoints.save_every
        sizes, output = evaluation.inference_batch_sizes, files.output
        vectors = {"export_items": modes.export_items, "export_users": modes.export_users}
        folder = "" if modes.export is None else str(modes.export.absolute())
        user = next(iter(modes.of_a_model), "--blend" if evaluation.blend else None)
        no_mode = not (modes.train or modes.inference_benchmark or modes.of_a_model)
        return {
            f"--inference_batch_sizes: {sizes!r} is not a comma-separated list of integers, "
            "e.g. 1,64,512": not re.fullmatch(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", sizes),
            f"--baselines: {evaluation.baselines!r} is not a comma-separated list of "
            f"{', '.join(BASELINES)}": not set(evaluation.baseline_names) <= set(BASELINES),
            "no mode selected; pass at least one of --train, --test, --inference_benchmark, "
            "--recommend, --score, --similar_items, --export_items, --export_users, --export": (
                no_mode
            ),
            f"{user} needs a trained model; pass --checkpoint_dir or --train": (
                user is not None and not modes.train and files.checkpoint_dir is None
            ),
            "--explain and --blend ease are mutually exclusive: it explains the model alone; "
            "pass --blend none": evaluation.blend == "ease" and evaluation.explain > 0,
            "--recommend needs --output": output is None
            and (
                modes.recommend is True
                or (modes.recommend is not None and modes.export_users is None)
            ),
            "--score needs --output": modes.score is not None and output is None,
            "--recommend without a file has no effect with --score, whose histories are the "
            "prepared ones": modes.score is not None and modes.recommend is True,
            f"--output {output}: the name must end in {', '.join(OUTPUT_SUFFIXES)}": (
                output is not None and not output.name.endswith(OUTPUT_SUFFIXES)
            ),
            **{
                f"--{mode} {path}: the name must end in .parquet": path.suffix != ".parquet"
                for mode, path in vectors.items()
                if path is not None
            },
            f"--export {folder}: TensorFlow reads '[' and '\\' in a path as a pattern and could "
            "not load the model; name another folder": re.search(r"[\[\\]", folder) is not None,
            f"--export {folder}: TensorFlow needs a path in UTF-8; name another folder": (
                re.search("[\ud800-\udfff]", folder) is not None  # bytes that are not UTF-8
            ),
            f"--save_every: {save_every!r} is not a positive interval in minutes (10m) or epochs "
            "(5e or 5)": not _INTERVAL.fullmatch(save_every),
            "--parallel items and --warm_start are mutually exclusive: train an epoch with "
            "--parallel users first, and resume it": (
                self.execution.divides_items and self.checkpoints.warm_start is not None
            ),
            f"{user or '--inference_benchmark'} after --parallel items needs --checkpoint_dir, "
            "since no worker holds the whole model": (
                self.execution.divides_items
                and files.checkpoint_dir is None
                and (user is not None or modes.inference_benchmark)
            ),
            f"--resume {resume} and --restart are mutually exclusive": (
                resume != "auto" and self.checkpoints.restart
            ),
        }

    def _useless(self) -> Iterator[str]:
        """Yield a phrase for each flag that has no effect beside others."""
        useless, resume = partial(cli.useless, self), self.checkpoints.resume
        if (self.model.encoder, self.model.decoder) == ("dense", "linear"):
            yield from useless(["activation"], "with --encoder dense and --decoder linear")
        if self.objective.kl_per_item:
            preset = PRESETS.get(self.presets.preset or "", {})
            names = [n for n in _ANNEALING if getattr(self.objective, n) != preset.get(n)]
            yield from useless(names, "with --kl_per_item, which is not annealed")
        if self.modes.recommend is not None:
            names, scores = ["allow", "deny", "explain"], self.modes.score is not None
            if scores or self.files.output is None:
                yield from useless(names, "with --score" if scores else "without --output")
        if not self.needs_ease and self.presets.preset != "auto":
            reason = "without --blend, or --test and ease in --baselines"
            yield from useless(["ease_lambda", "ease_dropout"], reason)
        if self.execution.divides_items:
            yield from useless(["fp16_allreduce"], "with --parallel items: no gradients are sent")
        if self.files.checkpoint_dir is None:
            yield from useless(_SAVING, "without --checkpoint_dir")
        if resume not in ("auto", "never"):
            yield from useless(["warm_start"], f"with --resume {resume}")

    def paths(self) -> Iterator[cli.Paths]:
        """Yield the outputs, the folders of outputs and the inputs, with their flags."""
        files, values = self.files, cli.values_of(self)
        paths = {name: value for name, value in values.items() if isinstance(value, Path)}

        def named(*names: str) -> list[tuple[str, Path]]:
            return [(f"--{name}", paths[name]) for name in names if name in paths]

        vectors = "export_items", "export_users"
        traces = [("--trace", path) for path in self.trace_paths.values()]
        # The folder of --export is created as a whole, at the end.
        yield [*named("export", "log_path", "output", *vectors), *traces]
        yield named("checkpoint_dir", "results_dir", "tensorboard_dir")
        results = [
            ("--results_dir", files.results_dir / path.name)
            for path in (files.log_path, files.output)
            if files.results_dir and path and _RESULTS.fullmatch(path.name)
        ]
        read = named("recommend", "score", "allow", "deny", "item_names")
        yield [*read, *results, ("--data_dir", files.data_dir / files.dataset / "preprocessed")]


def auto_values(users: int, ease_fits: bool) -> dict[str, Any]:
    """Return what ``--preset auto`` chooses beside its values in ``PRESETS``.

    Args:
        users: U, the number of training users.
        ease_fits: whether the weights of EASE fit into memory.
    """
    steps = 10
    batch = min(500, max(50, math.ceil(users / steps)))
    values = {"batch_size_train": batch, "early_stop": 5}
    return values | ({"blend": "ease"} if ease_fits else {})


def parse_flags(
    arguments: Sequence[str] | None = None, of_checkpoint: Mapping[str, Any] | None = None
) -> Config:
    """Return the configuration of a command line, by default that of this process.

    ``of_checkpoint`` holds values of flags that are not given, see ``flags_of_checkpoint``.

    Raises:
        UserError: a flag is unknown, a value has the wrong type or is out of range, or flags
            contradict each other.
    """
    try:
        return cli.parse(
            Config,
            "main.py",
            "Train a variational autoencoder for collaborative filtering: one mode or several",
            arguments,
            NAMED_VALUES,
            of_checkpoint,
        )
    except UserError as error:
        if not of_checkpoint:
            raise
        # The flags that were given are right by themselves.
        taken = cli.flags_text(of_checkpoint)
        raise UserError(f"{str(error)[:-1]}; the checkpoint has {taken}.") from None
