"""Flags of main.py: checked all at once, before TensorFlow is imported."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, run_main, run_prepare

from vae import cli
from vae.config import PRESETS, Config, Interval, parse_flags
from vae.errors import UserError
from vae.load.config import PrepareConfig
from vae.load.config import parse_flags as parse_options

SEED_FLAGS = (
    "train", "test", "inference_benchmark", "amp", "epochs", "batch_size_train",
    "batch_size_validation", "validation_step", "warm_up_epochs", "total_anneal_steps",
    "anneal_cap", "lam", "lr", "beta1", "beta2", "top_results", "xla", "trace", "activation",
    "log_path", "seed", "data_dir", "checkpoint_dir", "results_dir",
)  # fmt: skip


def test_help_lists_every_flag_of_the_original_with_its_default():
    done = run_main("--help")
    assert done.returncode == 0
    for flag in SEED_FLAGS:
        assert f"--{flag}" in done.stdout
    assert "(default: 24576)" in " ".join(done.stdout.split())


@pytest.mark.parametrize("flags", [["--help"], ["--version"], ["--epochs", "0"]])
def test_help_and_wrong_flags_do_not_import_tensorflow(flags):
    code = (
        "import sys, main\n"
        f"sys.argv = ['main.py', *{flags}]\n"
        "try: main.main()\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'numpy', 'horovod'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_defaults_are_those_of_the_published_results():
    config = Config.of(train=True)
    assert (config.training.epochs, config.training.batch_size_train, config.training.lr) == (
        400,
        24576,
        0.004,
    )
    assert (
        config.training.beta1,
        config.training.beta2,
        config.objective.lam,
        config.execution.seed,
    ) == (0.9, 0.9, 0.0, 0)
    assert (config.objective.total_anneal_steps, config.objective.anneal_cap) == (15000, 0.1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "no mode selected; pass at least one of --train, --test, --inference"),
        (["--test"], "--test needs a trained model; pass --checkpoint_dir or --train"),
        (
            ["--train", "--recommend", "h.csv", "--output", "./h.csv"],
            "--output h.csv: would overwrite the file of --recommend; name another",
        ),
        (["--train", "--export", "m[1]"], "m[1]: TensorFlow reads '[' and"),
        (["--train", "--export", "m\udcff"], "m\udcff: TensorFlow needs a path in UTF-8; name"),
        (["--export", "m"], "--export needs a trained model; pass --checkpoint_dir or"),
        (["--train", "--recommend"], "--recommend needs --output"),
        (["--train", "--recommend", "--output", "r.xls"], "--output r.xls: the name must end in"),
        (["--train", "--epochs", "0"], "--epochs 0 is out of range: at least 1"),
        (["--train", "--lr", "nan"], "--lr nan is out of range: at least 0"),
        (["--train", "--beta2", "1"], "--beta2 1.0 is out of range: at least 0 and below 1"),
        (
            ["--train", "--dropout", "-0.1"],
            "--dropout -0.1 is out of range: at least 0 and below 1",
        ),
        (["--train", "--seed", "-1"], "--seed -1 is out of range"),
        (["--train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--train", "--activation", "sin"], "invalid choice: 'sin'"),
        (["--train", "--inference_batch_sizes", "1,x"], "'1,x' is not a comma-separated list"),
        (["--train", "--hidden_dim", "9" * 30], "is out of range: 1 to 1048576"),
        (["--train", "--latent_dim", "1048577"], "--latent_dim 1048577 is out of range"),
        (["--train", "--lr", "inf"], "--lr inf is out of range: at least 0"),
        (["--train", "--save_every", "9" * 5000], "--save_every: '9999"),
        (["--train", "--checkpoint_dir", ""], "argument --checkpoint_dir: the path is empty"),
        (["--test", "--checkpoint", "latest"], "--checkpoint latest needs --checkpoint_dir"),
        (["--train", "--epoch", "3"], "unrecognized arguments: --epoch 3 (did you mean --epochs?)"),
        (["--train", "--data-dir=D"], "arguments: --data-dir=D (did you mean --data_dir?)"),
        (["-Train", "--EPOCHS", "3"], "3 (did you mean --train, --epochs?)"),
        (["--train", "--quux", "3"], "unrecognized arguments: --quux 3;"),
        (["--train", "epochs", "-3"], "unrecognized arguments: epochs -3;"),
    ],
)
def test_a_bad_flag_is_one_sentence(flags, sentence):
    with pytest.raises(UserError) as caught:
        parse_flags(flags)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("program", "flags", "phrases"),
    [
        (
            run_main,
            "--test --epochs many --quux 3 --data-dir=D --lr nan --activation sin --dropout",
            [
                "argument --epochs: invalid int value: 'many'",
                r"argument --activation: invalid choice: 'sin' \(choose from .*\)",
                "argument --dropout: expected one argument",
                r"unrecognized arguments: --quux 3 --data-dir=D \(did you mean --data_dir\?\)",
                "--lr nan is out of range: at least 0",
                "--test needs a trained model; pass --checkpoint_dir or --train",
            ],
        ),
        (
            run_main,
            "--train=3 --epochs x --epochs y --test",
            [
                "argument --train: ignored explicit argument '3'",
                "argument --epochs: invalid int value: 'x'",
                # Not that --test needs --train, which is there.
            ],
        ),
        (
            run_main,
            "--test --checkpoint-dir=c",
            [r"unrecognized arguments: --checkpoint-dir=c \(did you mean --checkpoint_dir\?\)"],
        ),
        (
            run_prepare,
            "--threshold x --ratings --foo --heldout_users 0 --sep=é --time_col t",
            [
                "argument --threshold: invalid float value: 'x'",
                "argument --ratings: expected at least one argument",
                "unrecognized arguments: --foo",
                "--heldout_users 0.0 is out of range: at least 1e-09",
                "--time_col has no effect without --targets last or --split_time",
                "--sep 'é' is not a valid column separator; .*",
            ],
        ),
    ],
)
def test_wrong_flags_are_all_named_at_once(program, flags, phrases):
    done = program(*flags.split())
    assert done.returncode == 2
    pattern = "; ".join([r"\w+\.py: error: " + phrases[0], *phrases[1:], r"see \w+\.py --help\.\n"])
    assert re.fullmatch(pattern, done.stderr), done.stderr


TEST = ("--test", "--checkpoint_dir", "c")


@pytest.mark.parametrize(
    ("without", "flags", "needed"),
    [
        (TEST, ["--tensorboard_dir", "t"], "--train"),
        (TEST, ["--resume", "never"], "--train"),
        (TEST, ["--restart"], "--train"),
        (TEST, ["--save_every", "5e"], "--train"),
        (TEST, ["--keep_checkpoints", "3"], "--train"),
        (TEST, ["--early_stop", "3"], "--train"),
        (TEST, ["--check_replicas", "3"], "--train"),
        (TEST, ["--output", "r.csv"], "--recommend"),
        (TEST, ["--title_col", "name"], "--item_names"),
        (
            TEST,
            ["--item_names", "m.csv"],
            "--recommend, --similar_items, --export_items or --export",
        ),
        (TEST, ["--export_dtype", "bfloat16"], "--export"),
        (TEST, ["--inference_batch_sizes", "1,64"], "--inference_benchmark"),
        (TEST, ["--trace"], "--train or --inference_benchmark"),
        (
            ["--train", "--checkpoint_dir", "c"],
            ["--checkpoint", "latest"],
            "--test, --recommend, --similar_items, --export_items, --export or "
            "--inference_benchmark",
        ),
    ],
)
def test_a_flag_without_effect_is_refused(without, flags, needed):
    sentence = f"{flags[0]} has no effect without {needed}."
    with pytest.raises(UserError) as caught:
        parse_flags([*without, *flags])
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("program", "flags", "useless"),
    [
        (
            run_main,
            "--train --save_every 5e --keep_checkpoints 3",
            ["save_every without --checkpoint_dir", "keep_checkpoints without --checkpoint_dir"],
        ),
        (
            run_main,
            "--train --checkpoint_dir c --warm_start w --resume must",
            ["warm_start with --resume must"],
        ),
        (
            run_main,
            "--train --preset small --model recvae --anneal_cap .3",
            ["anneal_cap with --kl_per_item, which is not annealed"],
        ),
        (
            run_prepare,
            "--rating_col none --threshold 3 --decimal , --mirror http://x",
            [
                "mirror without --download",
                "threshold with --rating_col none",
                "decimal with --rating_col none",
            ],
        ),
        (
            run_prepare,
            "--sep , --quoting none --decimal ,",
            ["decimal with --sep , and --quoting none"],
        ),
        (run_prepare, "--sep :: --quoting none", ["quoting with --sep ::, where quotes are data"]),
        *(
            (
                run_prepare,
                f"{source} --sep ; --encoding latin-1 --drop_missing",
                [
                    f"{name} with {source.split()[0]}, whose files have one format"
                    for name in ("sep", "encoding", "drop_missing")
                ],
            )
            for source in ("--download", "--archive ml-20m.zip")
        ),
        (
            run_prepare,
            "--dataset synthetic --no_header --user_col 0 --item_col 1 --rating_col none",
            ["no_header with --dataset synthetic, whose files have one format"],
        ),
    ],
)
def test_flags_without_effect_beside_others_are_all_named(program, flags, useless):
    done = program(*flags.split())
    assert done.returncode == 2
    phrases = [f"--{each.replace(' ', ' has no effect ', 1)}" for each in useless]
    assert done.stderr.partition("error: ")[2] == "; ".join(phrases) + ".\n"


def test_every_flag_that_needs_another_one_needs_flags_that_exist():
    needs = {field.name: field.metadata["needs"] for field in cli.flags(Config).values()}
    assert sum(bool(flags) for flags in needs.values()) == 20
    assert {flag for flags in needs.values() for flag in flags} <= set(needs)
    for settings in PRESETS.values():
        assert not any(needs[name] for name in settings)


def test_the_flags_of_a_training_run_can_be_repeated_without_train():
    parse_flags(
        [*TEST, "--preset", "small", "--epochs", "3", "--lr", "0.1", "--hidden_dim", "8", "--amp"]
    )
    defaults = ["--early_stop", "0", "--keep_checkpoints", "2", "--export_dtype", "float32"]
    parse_flags([*TEST, *defaults])
    parse_flags([*TEST, "--preset", "small", "--model", "recvae"])  # the annealing is the preset's


@pytest.mark.parametrize("options", [Config, PrepareConfig])
def test_every_number_has_a_range_and_is_refused_outside_of_it(options):
    parse = parse_flags if options is Config else parse_options
    fields = [f for f in cli.flags(options).values() if f.type in ("int", "float", "float | None")]
    assert len(fields) >= 6
    for field in fields:
        limits = field.metadata["limits"]
        outside = ["nan", "inf", "-inf"] if field.type != "int" else []
        if field.name != "threshold":  # any finite number is a rating
            outside += [str(limits["ge"] - 1)]
        if math.isfinite(limits["lt"]):
            outside += [str(limits["lt"])]
        if math.isfinite(limits["le"]):
            outside += [str(limits["le"] + 1)]
        assert outside
        for value in outside:
            with pytest.raises(UserError, match=f"--{field.name} .* is out of range"):
                parse([f"--{field.name}={value}"])


@pytest.mark.parametrize("options", [Config, PrepareConfig])
def test_an_empty_value_is_refused_for_every_flag(options):
    """Such as that of a shell variable that is not set."""
    parse = parse_flags if options is Config else parse_options
    flags = [f"--{field.name}" for field in cli.flags(options).values() if field.type != "bool"]
    assert len(flags) > 10
    for flag in flags:
        for arguments in ([flag, ""], [f"{flag}="]):
            with pytest.raises(UserError, match=f"^argument {flag}: "):
                parse(arguments)


@pytest.mark.parametrize(
    "flag",
    ["checkpoint_dir", "results_dir", "tensorboard_dir", "log_path", "output", "export_items"],
)
def test_an_export_into_a_folder_that_the_run_itself_fills_is_refused(flag):
    export = ("--train", "--recommend", "--output", "r.csv", "--export", "x/m")
    with pytest.raises(UserError, match=rf"--export x/m: contains --{flag} x/y/\.\./m/r.parquet"):
        parse_flags([*export, f"--{flag}", "x/y/../m/r.parquet"])
    with pytest.raises(UserError, match=f"--export x/m: contains --{flag} "):
        parse_flags([*export, f"--{flag}", str(Path("x/m/r.parquet").absolute())])
    parse_flags([*export, f"--{flag}", "x/m2/r.parquet"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--log_path r.csv", "--log_path r.csv: would overwrite the file of --output; name"),
        ("--log_path link", "--log_path link: would overwrite the file of --output; name"),
        ("--log_path hard", "--log_path hard: would overwrite the file of --recommend; name"),
        ("--log_path a/../i.parquet", "would overwrite the file of --export_items; name"),
        ("--log_path h.csv", "--log_path h.csv: would overwrite the file of --recommend; name"),
        ("--log_path r.csv/log", "--output r.csv: contains --log_path r.csv/log; name another"),
        ("--log_path f.csv --deny f.csv", "would overwrite the file of --deny; name"),
        ("--deny e --export_items e/i.parquet", "--deny e: contains --export_items e/i.parquet;"),
        ("--results_dir r.csv", "--output r.csv: contains --results_dir r.csv; name another"),
        ("--checkpoint_dir i.parquet/c", "--export_items i.parquet: contains --checkpoint_dir"),
        ("--results_dir a --log_path a/epochs.csv", "would overwrite the file of --results_dir;"),
        ("--results_dir . --log_path loss.png", "would overwrite the file of --results_dir; name"),
        ("--log_path timeline_train.json --trace", "would overwrite the file of --trace; name"),
        ("--log_path d/x/preprocessed/log", "--data_dir d/x/preprocessed: contains --log_path d/"),
    ],
)
def test_an_output_that_is_another_output_or_an_input_is_refused(
    flags, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("h.csv").touch()
    for folder in ("e", "d/x/preprocessed"):
        Path(folder).mkdir(parents=True)
    Path("hard").hardlink_to("h.csv")
    Path("link").symlink_to("r.csv")
    modes = "--train --recommend h.csv --output r.csv --export_items i.parquet --data_dir d "
    parse_flags(f"{modes} --dataset x --results_dir a --log_path a/log --checkpoint_dir a".split())
    parse_flags(f"{modes} --dataset x --log_path /dev/null --deny /dev/null".split())
    with pytest.raises(UserError) as caught:
        parse_flags(f"{modes} --dataset x {flags}".split())
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--ratings d", "--ratings d: contains --data_dir d/x/preprocessed; name another"),
        ("--ratings a d/x/preprocessed/manifest.json", "d/x/preprocessed: contains --ratings d/x"),
        ("--ratings link", "d/x/preprocessed: would overwrite the file of --ratings; name"),
    ],
)
def test_ratings_that_the_preparation_would_overwrite_are_refused(
    flags, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("link").symlink_to("d/x/preprocessed")
    with pytest.raises(UserError) as caught:
        parse_options(["--data_dir", "d", "--dataset", "x", *flags.split()])
    assert sentence in str(caught.value)


def test_recommending_without_a_file_is_to_all_and_never_the_result_of_an_empty_name():
    config = parse_flags(["--train", "--recommend", "--output", "r.csv"])
    assert config.modes.recommend is True
    outside = ("--output", "../r.csv", "--log_path", "../log")
    config = parse_flags(["--train", "--recommend", ".", *outside])
    assert config.modes.recommend == Path()


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError, match=r"--epochs 0.*--lr -1.0.*no mode selected"):
        parse_flags(["--epochs", "0", "--lr", "-1"])


def test_a_bad_flag_exits_2_without_a_trace():
    done = run_main("--train", "--epochs", "0")
    assert done.returncode == 2
    assert done.stderr.startswith("main.py: error: --epochs 0")
    assert len(done.stderr.splitlines()) == 1


def test_the_preset_liang_is_the_papers():
    config = parse_flags(["--train", "--preset", "liang"])
    assert (config.training.epochs, config.training.batch_size_train, config.objective.dropout) == (
        200,
        500,
        0.5,
    )
    assert (config.model.hidden_dim, config.model.latent_dim, config.model.activation) == (
        600,
        200,
        "tanh",
    )
    assert (
        config.training.lr,
        config.training.beta1,
        config.training.beta2,
        config.objective.lam,
    ) == (0.001, 0.9, 0.999, 0.0)
    assert (config.objective.total_anneal_steps, config.objective.anneal_cap) == (200_000, 0.2)


def test_a_given_flag_wins_over_the_preset_even_with_its_default_value():
    config = parse_flags(["--lr", "0.004", "--preset", "small", "--train"])
    assert config.training.lr == Config.of(train=True).training.lr
    assert config.training.batch_size_train == PRESETS["small"]["batch_size_train"]


def test_help_says_what_each_preset_sets():
    text = " ".join(run_main("--help").stdout.split())
    for settings in PRESETS.values():
        assert " ".join(f"--{name} {value}" for name, value in settings.items()) in text


def test_a_model_trained_with_a_preset_needs_no_preset_to_be_used():
    for settings in PRESETS.values():
        assert not {"hidden_dim", "latent_dim", "activation"} & set(settings)


def test_benchmark_batch_sizes_are_numbers():
    config = parse_flags(["--inference_benchmark", "--inference_batch_sizes", "1,64"])
    assert config.evaluation.benchmark_batch_sizes == (1, 64)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("10m", Interval(minutes=10)),
        ("0.5m", Interval(minutes=0.5)),
        ("5e", Interval(epochs=5)),
        ("5", Interval(epochs=5)),
    ],
)
def test_an_interval_is_in_minutes_or_epochs(text, interval):
    assert Interval.parse(text) == interval


@pytest.mark.parametrize("text", ["", "0", "0e", "0m", "0.0m", "1.5e", "m", "1h", "-1m", "infm"])
def test_other_texts_are_no_interval(text):
    with pytest.raises(ValueError, match="interval"):
        Interval.parse(text)


def test_an_interval_ends_at_multiples_of_epochs_or_after_its_minutes():
    assert [n for n in range(1, 10) if Interval(epochs=4).epochs_are_over(n)] == [4, 8]
    assert not Interval(epochs=4).minutes_are_over(1e9)
    assert Interval(minutes=2).minutes_are_over(120)
    assert not Interval(minutes=2).minutes_are_over(119)
    assert not Interval(minutes=2).epochs_are_over(2)
