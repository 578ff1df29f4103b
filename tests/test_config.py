"""Flags of both programs: which there are, and what is refused before TensorFlow is imported."""

import dataclasses
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, run_main, run_prepare
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vae import cli
from vae.config import MODEL_FLAGS, NAMED_VALUES, PRESETS, Config, Interval, parse_flags
from vae.load.config import PrepareConfig
from vae.load.config import parse_flags as parse_options

MAIN_FLAGS = """
train test inference_benchmark recommend score similar_items export_items export_users export check
data_dir dataset checkpoint_dir results_dir tensorboard_dir log_path output allow deny item_names
item_names_col title_col
resume restart warm_start save_every keep_checkpoints checkpoint check_replicas
model preset
hidden_dim latent_dim activation encoder decoder prior
dropout kl_per_item total_anneal_steps anneal_cap lam
epochs batch_size_train lr beta1 beta2 validation_step early_stop warm_up_epochs
batch_size_validation inference_batch_sizes baselines ease_lambda ease_dropout blend top_results
explain export_dtype
amp no_tf32 fp16_allreduce parallel stall_timeout xla trace seed
"""
"""A flag stays: other people's commands go on working. A new one is added here knowingly."""

PREPARE_FLAGS = """
data_dir dataset scale download archive mirror force extend
ratings split_dir format user_col item_col rating_col time_col
sep no_header encoding decimal comment drop_missing rejects keep_null_ids quoting threshold
min_items_per_user min_users_per_item heldout_users test_proportion targets split_time seed
"""

OPTIONS = pytest.mark.parametrize(
    ("options", "parse"), [(Config, parse_flags), (PrepareConfig, parse_options)]
)


@pytest.mark.parametrize(
    ("options", "program", "frozen"),
    [(Config, run_main, MAIN_FLAGS), (PrepareConfig, run_prepare, PREPARE_FLAGS)],
)
def test_the_flags_are_those_listed_here_and_in_help_with_their_defaults(options, program, frozen):
    assert [*cli.flags(options)] == frozen.split()
    done = program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split()).replace("- ", "-")  # argparse wraps at hyphens
    for heading, field, _ in cli.headed_flags(options):
        assert f" {heading}: " in text
        help_text = field.metadata["help"]
        assert f" --{field.name} " in text
        assert help_text.replace("- ", "-") in text
        if field.default not in (None, False):
            assert f"(default: {field.default})" in text


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


BAD_MAIN_FLAGS = """
 -> no mode selected; pass at least one of --train, --test, --inference_benchmark, ..., --export
--test -> --test needs a trained model; pass --checkpoint_dir or --train
--export m -> --export needs a trained model; pass --checkpoint_dir or --train
--inference_benchmark --blend ease -> --blend needs a trained model; pass --checkpoint_dir or ...
--train --export m[1] -> --export .../m[1]: TensorFlow reads '[' and ...; name another folder
--train --export m\udcff -> --export .../m\\udcff: TensorFlow needs a path in UTF-8; ...
--train --export_items i.csv -> --export_items i.csv: the name must end in .parquet
--train --recommend -> --recommend needs --output
--train --score p.csv -> --score needs --output
--train --score p.csv --recommend --output r.csv
 -> --recommend without a file has no effect with --score, whose histories are the prepared ones
--train --score p.csv --output r.csv --recommend h.csv --allow a
 -> --allow has no effect with --score
--train --export_users u.csv -> --export_users u.csv: the name must end in .parquet
--train --recommend --export_users u.parquet -> --recommend needs --output
--train --recommend h.csv --export_users u.parquet --deny b
 -> --deny has no effect without --output
--train --recommend --output r.xls -> --output r.xls: the name must end in .csv, ...
--train --recommend --output r.csv --blend ease --explain 3
 -> --explain and --blend ease are mutually exclusive: it explains the model alone; pass ...
--train --restart --resume must --checkpoint_dir c -> --resume must and --restart are mutually ...

--train --parallel items --warm_start w --fp16_allreduce
 -> --parallel items and --warm_start are mutually exclusive: train an epoch with --parallel ...;
 --fp16_allreduce has no effect with --parallel items: no gradients are sent
--train --test --parallel items -> --test after --parallel items needs --checkpoint_dir, ...

--train --epochs 0 -> --epochs 0 is out of range: at least 1
--train --beta2 1 -> --beta2 1.0 is out of range: at least 0 and below 1
--train --seed -1 -> --seed -1 is out of range: 0 to 2147483647
--train --hidden_dim 999999999999999999999 -> --hidden_dim 9... is out of range: 1 to 1048576
--epochs 0 --lr -1 -> --epochs 0 ...; --lr -1.0 is out of range: at least 0; no mode selected; ...
--inference_benchmark --inference_batch_sizes 1,x -> --inference_batch_sizes: '1,x' is not a ...
--train --test --baselines best -> --baselines: 'best' is not a comma-separated list ...

--train --epochs many -> argument --epochs: invalid int value: 'many'
--train --activation sin -> argument --activation: invalid choice: 'sin' (choose from ...)
--train --checkpoint_dir '' -> argument --checkpoint_dir: the value is empty
--train --epoch 3 -> unrecognized arguments: --epoch 3 (did you mean --epochs?)
--train --data-dir=D -> unrecognized arguments: --data-dir=D (did you mean --data_dir?)
-Train --EPOCHS 3 -> unrecognized arguments: -Train --EPOCHS 3 (did you mean --train, --epochs?)
--train --quux 3 -> unrecognized arguments: --quux 3
--train epochs -3 -> unrecognized arguments: epochs -3
--test --checkpoint-dir=c -> unrecognized arguments: --checkpoint-dir=c (did you mean ...?)
--train=3 --epochs x --epochs y --test
 -> argument --train: ignored explicit argument '3'; argument --epochs: invalid int value: 'x'
--test --epochs many --quux 3 --data-dir=D --lr nan --activation sin --dropout
 -> argument --epochs: invalid int value: 'many'; argument --activation: invalid choice: 'sin' ...;
 argument --dropout: expected one argument; unrecognized arguments: --quux 3 --data-dir=D (did ...);
 --lr nan is out of range: at least 0; --test needs a trained model; pass ...

{test} --tensorboard_dir t -> --tensorboard_dir has no effect without --train
{test} --resume never -> --resume has no effect without --train
{test} --restart -> --restart has no effect without --train
{test} --warm_start w -> --warm_start has no effect without --train
{test} --save_every 5e -> --save_every has no effect without --train
{test} --keep_checkpoints 3 -> --keep_checkpoints has no effect without --train
{test} --early_stop 3 -> --early_stop has no effect without --train
{test} --parallel items -> --parallel has no effect without --train
{test} --check_replicas 3 -> --check_replicas has no effect without --train
{test} --output r.csv --allow a --deny b --explain 3
 -> --output has no effect without --recommend or --score; --allow has no effect without ...;
 --deny has no effect without --recommend; --explain has no effect without --recommend
{test} --title_col name --item_names_col id
 -> --item_names_col has no effect without --item_names; --title_col has no effect without ...
{test} --item_names m.csv
 -> --item_names has no effect without --recommend, --score, --similar_items, ... or --export
{test} --export_dtype bfloat16 -> --export_dtype has no effect without --export
{test} --inference_batch_sizes 1,64 -> --inference_batch_sizes has no effect without --inference_...
{test} --trace -> --trace has no effect without --train or --inference_benchmark
--train --checkpoint_dir c --checkpoint latest -> --checkpoint has no effect without --test,
 --recommend, --score, --similar_items, --export_items, ..., --export or --inference_benchmark
--train --baselines ease -> --baselines has no effect without --test
--train --ease_dropout 0 -> --ease_dropout has no effect without --blend, or --test and ease in ...
--train --test --checkpoint latest -> --checkpoint has no effect without --checkpoint_dir
--train --save_every 5e --keep_checkpoints 3 -> --save_every has no effect without --checkpoint_dir;
 --keep_checkpoints has no effect without --checkpoint_dir
--train --restart -> --restart has no effect without --checkpoint_dir
--train --resume must -> --resume has no effect without --checkpoint_dir
--train --checkpoint_dir c --warm_start w --resume must -> --warm_start has no effect with ...
--train --model recvae --activation relu
 -> --activation has no effect with --encoder dense and --decoder linear
--train --preset small --model recvae --anneal_cap .3
 -> --anneal_cap has no effect with --kl_per_item, which is not annealed

{all} --log_path r.csv -> --log_path r.csv: would overwrite the file of --output; name another
{all} --log_path link -> --log_path link: would overwrite the file of --output; name another
{all} --log_path hard -> --log_path hard: would overwrite the file of --recommend; name another
{all} --log_path a/../i.parquet -> ...: would overwrite the file of --export_items; name another
{all} --log_path ./h.csv -> --log_path h.csv: would overwrite the file of --recommend; name another
{all} --log_path r.csv/log -> --output r.csv: contains --log_path r.csv/log; name another
{all} --export_users i.parquet -> --export_items i.parquet: would overwrite the file of --export_...
{all} --score p.csv --log_path p.csv -> --log_path p.csv: would overwrite the file of --score; ...
{all} --log_path f.csv --deny f.csv -> --log_path f.csv: would overwrite the file of --deny; ...
{all} --deny e --export_items e/i.parquet -> --deny e: contains --export_items e/i.parquet; name ...
{all} --results_dir r.csv -> --output r.csv: contains --results_dir r.csv; name another
{all} --checkpoint_dir i.parquet/c -> --export_items i.parquet: contains --checkpoint_dir ...
{all} --results_dir a --log_path a/epochs.csv -> ...: would overwrite the file of --results_dir; ...
{all} --results_dir . --log_path loss.png -> ...: would overwrite the file of --results_dir; ...
{all} --log_path a/timeline_train.json --trace -> ...: would overwrite the file of --trace; ...
{all} --log_path d/x/preprocessed/log -> --data_dir d/x/preprocessed: contains --log_path d/x/...
{all} --export x/m --checkpoint_dir x/y/../m/r -> --export x/m: contains --checkpoint_dir ...
{all} --export x/m --results_dir x/y/../m/r -> --export x/m: contains --results_dir x/y/../m/r; ...
{all} --export x/m --tensorboard_dir x/m/r -> --export x/m: contains --tensorboard_dir x/m/r; ...
{all} --export x/m --log_path {here}/x/m/r -> --export x/m: contains --log_path /.../x/m/r; ...
{all} --export x/m --output x/m/r.csv -> --export x/m: contains --output x/m/r.csv; ...
{all} --export x/m --export_items x/m/i.parquet -> --export x/m: contains --export_items x/m/...
"""

BAD_PREPARE_FLAGS = """
stray -> unrecognized arguments: stray
--seed -> argument --seed: expected one argument
--threshold high -> argument --threshold: invalid float value: 'high'
--test_proportion 0 -> --test_proportion 0.0 is out of range: at least 1e-09 and below 1
--heldout_users 2.5 -> --heldout_users 2.5 is neither an integer nor below 1
--dataset ../elsewhere -> --dataset '../elsewhere' is not a valid directory name; use letters, ...
--dataset '' -> argument --dataset: the value is empty
--scale demo -> --scale applies to --dataset synthetic only
--dataset synthetic --scale huge -> argument --scale: invalid choice: 'huge' (choose from ...)
--dataset synthetic --ratings r.csv -> --ratings does not apply to --dataset synthetic; pass ...
--ratings -> argument --ratings: expected at least one argument
--download --ratings r.csv -> --archive, --ratings, --split_dir and --download are ...
--download --dataset mine -> --dataset 'mine' is not a data set that --download knows; pass one ...
--download --mirror ftp://host/folder -> --mirror 'ftp://host/folder' is not a URL that begins ...
--user_col movieId -> --user_col and --item_col both name 'movieId'
--rating_col userId -> --rating_col 'userId' is a column of ids; pass another one or 'none'
--sep '"' -> --sep '"' is not a valid column separator; pass printable ASCII ...
--sep '\\n' -> --sep '\\n' is not a valid column separator; ...
--sep é -> --sep 'é' is not a valid column separator; ...
--sep 'a"' -> --sep 'a"' is not a valid column separator; ...
--no_header --user_col user --item_col 1 --rating_col 2 -> --user_col 'user' is not a column ...
--no_header --user_col \u0661 --item_col 1 --rating_col 2 -> --user_col '\u0661' is not a column ...
--seed \u0661 -> argument --seed: invalid int value: '\u0661'
--threshold \u0661 -> argument --threshold: invalid float value: '\u0661'
--decimal 5 -> --decimal '5' is part of numbers; pass e.g. ','
--decimal ,, -> --decimal ',,' is not a single character
--comment // -> --comment '//' is not a single character
--archive x.zip --dataset mine -> --dataset 'mine' is not a data set that --archive knows; ...
--encoding klingon -> --encoding 'klingon' is not a text encoding; pass e.g. latin-1
--encoding base64 -> --encoding 'base64' is not a text encoding; pass e.g. latin-1
--encoding idna -> --encoding 'idna' is not a text encoding; pass e.g. latin-1
--encoding undefined -> --encoding 'undefined' is not a text encoding; pass e.g. latin-1
--threshold x --ratings --foo --heldout_users 0 --sep=é --time_col t
 -> argument --threshold: invalid float value: 'x'; argument --ratings: expected ...;
 unrecognized arguments: --foo; --heldout_users 0.0 is out of range: at least 1e-09;
 --time_col has no effect without --targets last or --split_time; --sep 'é' is not a valid ...

--rating_col none --threshold 3 --decimal , --mirror http://x -> --mirror has no effect without
 --download; --threshold has no effect where every row counts; --decimal has no effect ...
--sep , --quoting none --decimal , -> --decimal has no effect with --sep , and --quoting none
--sep :: --quoting none -> --quoting has no effect with --sep ::, where quotes are data
--split_dir e --seed 1 --threshold 3 --rating_col x --ratings h.csv -> --archive, --ratings,
 --split_dir and --download are mutually exclusive; --threshold has no effect where every row
 counts; --rating_col has no effect where ...; --seed has no effect with --split_dir, which is split
--rejects r.csv -> --rejects has no effect without --drop_missing or --extend
--drop_missing --rejects h.csv --ratings h.csv -> --rejects h.csv: would overwrite the file of ...
--format lists --no_header --user_col 0 --item_col 1 --time_col 2 --targets last
 -> --no_header has no effect with --format lists; --time_col has no effect with --format lists
--download --sep ';' --encoding latin-1 -> --sep has no effect with --download, whose files have
 one format; --encoding has no effect with --download, whose files have one format
--targets last --split_time 3 -> --targets last needs --time_col; --split_time 3 needs --time_col
--time_col userId --targets last -> --time_col 'userId' is a column of ids or ratings; pass ...
--time_col day --split_time Monday -> --split_time 'Monday' is neither a number nor a date ...
--no_header --user_col 0 --item_col 1 --rating_col 2 --time_col day --targets last
 -> --time_col 'day' is not a column number, which --no_header needs; ...
--archive ml-20m.zip --drop_missing -> --drop_missing has no effect with --archive, whose files ...
--dataset synthetic --no_header --user_col 0 --item_col 1 --rating_col none
 -> --no_header has no effect with --dataset synthetic, whose files have one format

--ratings d --data_dir d --dataset x -> --ratings d: contains --data_dir d/x/preprocessed; ...
--ratings a d/x/preprocessed/manifest.json --data_dir d --dataset x
 -> --data_dir d/x/preprocessed: contains --ratings d/x/preprocessed/manifest.json; name another
--ratings prepared --data_dir d --dataset x -> --data_dir d/x/preprocessed: would overwrite the ...
"""

ALL = (
    "--train --recommend h.csv --output r.csv --export_items i.parquet --data_dir d --dataset x "
    "--checkpoint_dir c --results_dir a"
)


def rows(table):
    """The rows of a table of flags and sentences, in which "..." stands for anything."""
    for row in re.findall(r"^.*\n(?: .*\n)*", table.replace("\n\n", "\n").strip("\n") + "\n", re.M):
        yield row.replace("\n", "").split(" -> ")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with files that flags name."""
    monkeypatch.chdir(tmp_path)
    Path("h.csv").touch()
    for folder in ("e", "d/x/preprocessed"):
        Path(folder).mkdir(parents=True)
    Path("hard").hardlink_to("h.csv")
    Path("link").symlink_to("r.csv")
    Path("prepared").symlink_to("d/x/preprocessed")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "flags", "sentence"),
    [
        *((run_main, *row) for row in rows(BAD_MAIN_FLAGS)),
        *((run_prepare, *row) for row in rows(BAD_PREPARE_FLAGS)),
    ],
)
def test_wrong_flags_are_one_sentence_that_names_all_of_them(program, flags, sentence, here):
    before = sorted(here.rglob("*"))
    flags = flags.format(test="--test --checkpoint_dir c", all=ALL, here=here)
    done = program(*(word.replace(r"\n", "\n") for word in shlex.split(flags)))
    assert done.returncode == 2
    pattern = re.escape(sentence).replace(re.escape("..."), ".*")
    pattern = rf"\w+\.py: error: {pattern}(; see \w+\.py --help)?\.\n"
    assert re.fullmatch(pattern, done.stderr), done.stderr
    assert sorted(here.rglob("*")) == before


def test_outputs_may_lie_beside_each_other_and_devices_may_be_shared(here):
    for flags in ("--log_path a/log", "--log_path /dev/null --deny /dev/null", "--export x/m"):
        parse_flags([*ALL.split(), *flags.split()])
    for name in ("checkpoint_dir", "results_dir", "tensorboard_dir", "log_path"):
        parse_flags([*ALL.split(), "--export", "x/m", f"--{name}", "x/m2"])


def test_every_flag_that_needs_another_one_needs_flags_that_exist():
    needs = {name: field.metadata["needs"] for name, field in cli.flags(Config).items()}
    assert sum(bool(flags) for flags in needs.values()) == 21
    assert {flag for flags in needs.values() for flag in flags} <= set(needs)
    for settings_of in PRESETS.values():
        assert not any(needs[name] for name in settings_of)


@pytest.mark.parametrize(
    "flags",
    [
        "--preset small --epochs 3 --lr 0.1 --hidden_dim 8 --amp",
        "--early_stop 0 --keep_checkpoints 2 --export_dtype float32",  # the defaults
        "--preset small --model recvae",  # the annealing is the preset's
    ],
)
def test_the_flags_of_a_training_run_can_be_repeated_without_train(flags):
    parse_flags(["--test", "--checkpoint_dir", "c", *flags.split()])


@OPTIONS
def test_every_number_has_a_range_and_is_refused_outside_of_it(options, parse):
    fields = [f for f in cli.flags(options).values() if f.type in ("int", "float", "float | None")]
    assert len(fields) >= 6
    for field in fields:
        ge, le, lt = (field.metadata[limit] for limit in ("ge", "le", "lt"))
        outside = ["nan", "inf", "-inf"] if field.type != "int" else []
        outside += [str(ge - 1)] if field.name != "threshold" else []  # any number is a rating
        outside += [str(limit) for limit in (lt, le + 1) if math.isfinite(limit)]
        assert outside
        for value in outside:
            with pytest.raises(cli.FlagError, match=f"--{field.name} .* is out of range"):
                parse([f"--{field.name}={value}"])


@OPTIONS
def test_an_empty_value_is_refused_for_every_flag(options, parse):
    """Such as that of a shell variable that is not set."""
    flags = [f"--{name}" for name, field in cli.flags(options).items() if field.type != "bool"]
    assert len(flags) > 10
    for flag in flags:
        for arguments in ([flag, ""], [f"{flag}="]):
            with pytest.raises(cli.FlagError, match=f"^argument {flag}: "):
                parse(arguments)


def test_recommending_without_a_file_is_to_all_and_never_the_result_of_an_empty_name():
    config = parse_flags(["--train", "--recommend", "--output", "r.csv"])
    assert config.modes.recommend is True
    outside = ("--output", "../r.csv", "--log_path", "../log")
    config = parse_flags(["--train", "--recommend", ".", *outside])
    assert config.modes.recommend == Path()


def test_defaults_are_those_of_the_published_results_and_the_preset_liang_is_the_papers():
    same = {"beta1": 0.9, "dropout": 0.5, "lam": 0.0, "hidden_dim": 600, "latent_dim": 200}
    same |= {"activation": "tanh", "seed": 0}
    published = {
        "epochs": 400, "batch_size_train": 24576, "lr": 0.004, "beta2": 0.9,
        "total_anneal_steps": 15_000, "anneal_cap": 0.1, "batch_size_validation": 10_000,
        "validation_step": 50, "warm_up_epochs": 5, "top_results": 100,
    }  # fmt: skip
    paper = {
        "epochs": 200, "batch_size_train": 500, "lr": 0.001, "beta2": 0.999,
        "total_anneal_steps": 200_000, "anneal_cap": 0.2,
    }  # fmt: skip
    for flags, expected in (["--train"], published), (["--train", "--preset", "liang"], paper):
        values = cli.values_of(parse_flags(flags))
        assert {**values, **same, **expected} == values


def test_a_given_flag_wins_over_the_preset_even_with_its_default_value():
    config = parse_flags(["--lr", "0.004", "--preset", "small", "--train"])
    assert config.training.lr == Config.of(train=True).training.lr
    assert config.training.batch_size_train == PRESETS["small"]["batch_size_train"]


def test_help_and_the_table_of_flags_say_what_each_preset_sets():
    text = " ".join(run_main("--help").stdout.split())
    document = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    for name, choices in NAMED_VALUES.items():
        for choice, values in choices.items():
            assert f"--{name} {choice} stands for {cli.flags_text(values)}" in text
            assert f"`--{name} {choice}` | | stands for `{cli.flags_text(values)}`" in document


def test_a_model_trained_with_a_preset_needs_no_preset_to_be_used():
    for values in PRESETS.values():
        assert not values.keys() & {*MODEL_FLAGS} - {"model"}


def test_benchmark_batch_sizes_are_numbers():
    config = parse_flags(["--inference_benchmark", "--inference_batch_sizes", "1,64"])
    assert config.evaluation.benchmark_batch_sizes == (1, 64)


@pytest.mark.parametrize(
    ("text", "interval"),
    [("10m", (None, 10)), ("0.5m", (None, 0.5)), ("5e", (5, None)), ("5", (5, None))],
)
def test_an_interval_is_in_minutes_or_epochs(text, interval):
    config = parse_flags(["--train", "--checkpoint_dir", "c", "--save_every", text])
    assert config.checkpoints.save_interval == Interval(*interval)


@pytest.mark.parametrize(
    "text", ["0", "0e", "0m", "0.0m", "1.5e", "m", "1h", "-1m", "infm", "9" * 5000]
)
def test_other_texts_are_not_an_interval(text):
    with pytest.raises(cli.FlagError, match=f"--save_every: '{text[:9]}.*' is not a positive"):
        parse_flags(["--train", "--checkpoint_dir", "c", f"--save_every={text}"])


def test_an_interval_ends_at_multiples_of_epochs_or_after_its_minutes():
    assert [n for n in range(1, 10) if Interval(epochs=4).epochs_are_over(n)] == [4, 8]
    assert not Interval(epochs=4).minutes_are_over(1e9)
    assert Interval(minutes=2).minutes_are_over(120)
    assert not Interval(minutes=2).minutes_are_over(119)
    assert not Interval(minutes=2).epochs_are_over(2)


def test_ratings_given_several_times_are_all_read():
    given = parse_options(["--ratings", "a.csv", "--seed", "1", "--ratings", "b.csv", "c.csv"])
    assert [str(path) for path in given.ratings] == ["a.csv", "b.csv", "c.csv"]
    assert parse_options([]).ratings is None


@settings(max_examples=100)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**31 - 1),
            "threshold": st.floats(allow_nan=False, allow_infinity=False),
            "heldout_users": st.integers(1, 10**6).map(float) | st.floats(0.001, 0.499),
            "test_proportion": st.floats(0.01, 0.99),
            "min_items_per_user": st.integers(1, 100),
            "min_users_per_item": st.integers(0, 100),
            "sep": st.sampled_from([",", ";", "|", " ", "\t"]),
            "dataset": st.from_regex(r"[a-z0-9][a-z0-9_.-]*", fullmatch=True),
        }
    )
)
def test_flags_arrive_as_they_were_given(values):
    assume(values["dataset"] != "synthetic")
    options = parse_options([f"--{name}={value}" for name, value in values.items()])
    assert options == dataclasses.replace(PrepareConfig(), given=frozenset(values), **values)
