"""The commands of README.md, its pages and the tutorial run as written, one after another."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
NOT_HERE = {
    r"make |source ": "makes the environment that the tests run in",
    r"pip install ": "the same",
    r"docker ": "there may be no container engine; scripts/check_docker.sh builds the image",
    r".* -np (8|16) ": "needs as many GPUs",
}
"""Commands that are not run, by their beginning, and why."""
WITH_SEVERAL_WORKERS = (
    "README.md",
    "docs/training.md",
    "docs/recommending.md",
    "docs/many-workers.md",
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "documents",
    [
        pytest.param(WITH_SEVERAL_WORKERS, marks=pytest.mark.xdist_group("mpi")),
        ("docs/tutorial.md",),
    ],
    ids=" ".join,
)
def test_the_commands_of_documents_run_in_order(documents, tmp_path):
    """Those of several documents continue from each other."""
    for name in ("main.py", "prepare_dataset.py", "scripts", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    give_files(tmp_path)
    commands = [
        command
        for document in documents
        for command in commands_of(ROOT / document)
        if is_for_here(command)
    ]
    assert any("--train" in command for command in commands)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail"],
        input="\n".join(commands),
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def commands_of(document):
    """The commands in a document's bash blocks: a continued line, or a here-document, is one."""
    for block in BLOCK.findall(document.read_text(encoding="utf-8")):
        lines = iter(re.sub(r"\\\n\s*", "", block).splitlines())
        for line in lines:
            command = [line.strip()]
            if end := re.search(r"<<'(\w+)'", line):
                command += iter(lambda lines=lines: next(lines), end[1])
                command.append(end[1])
            # What this test has put there need not be fetched, and a few trials are like many.
            fewer = re.sub(r"--trials \d+", "--trials 2", "\n".join(command))
            yield fewer.replace(" --download", "")


def is_for_here(command):
    return not any(re.match(beginning, command) for beginning in NOT_HERE)


def give_files(folder):
    """The files that the documents speak of, small: MovieLens-20M, plays, histories, titles."""
    rng = np.random.default_rng(0)
    movielens = folder / "data/ml-20m/extracted/ml-20m"
    movielens.mkdir(parents=True)
    # As many users as the default split of MovieLens-20M needs, and a few to train on.
    write_interactions(movielens / "ratings.csv", "userId,movieId,rating", 21_000, 6, ",5.0", rng)
    write_interactions(folder / "plays.csv", "listener,track", 600, 8, "", rng)
    write_interactions(folder / "histories.csv", "userId,movieId", 3, 4, "", rng)
    write_interactions(folder / "candidates.csv", "userId,movieId", 3, 5, "", rng)
    (folder / "sold-out.csv").write_text("movieId\n3\n17\n")
    titles = [f'{item},"Film no. {item} (1999)"' for item in range(40)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title", *titles]) + "\n")


def write_interactions(path, head, users, items_each, rest, rng):
    """A CSV file with distinct items out of 40 for each user."""
    items = rng.permuted(np.tile(np.arange(40), (users, 1)), axis=1)[:, :items_each]
    rows = [f"{user},{item}{rest}" for user, row in enumerate(items) for item in row]
    path.write_text("\n".join([head, *rows]) + "\n")
