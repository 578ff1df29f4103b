"""What the documents and the messages name is there."""

import re

from helpers import ROOT

from vae import cli
from vae.baselines.ease import check_memory, weights_per_item
from vae.config import Config
from vae.errors import UserError
from vae.load.config import PrepareConfig


def test_every_test_that_the_table_of_faults_names_exists():
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*", text, re.MULTILINE)[2:]
    assert len(rows) > 20
    for row in rows:
        proofs = row.strip("|").split("|")[-1]
        assert "`test_" in proofs, row
        # A file stands behind the names that it holds.
        for names, file in re.findall(r"((?:`test_\w+`[^`(;]*)+)(?:\((\S+\.py)\))?", proofs):
            path = ROOT / "tests" / (file or "cli/test_reliability.py")
            text = path.read_text(encoding="utf-8")
            for name in re.findall(r"`(test_\w+)`", names):
                assert f"def {name}(" in text, f"{name} is not in {file}"
        for file in re.findall(r"[\w/]+\.py", proofs):
            assert (ROOT / "tests" / file).is_file()


def test_every_flag_that_the_code_names_exists():
    names = [*cli.flags(Config), *cli.flags(PrepareConfig), "help", "version"]
    known = {f"--{name}" for name in names}
    known |= {"--signal", "--mpi"}  # of Slurm's sbatch and srun
    for path in [*(ROOT / "vae").rglob("*.py"), ROOT / "main.py", ROOT / "prepare_dataset.py"]:
        named = set(re.findall(r"(?<![\w-])--[a-z]\w+", path.read_text(encoding="utf-8")))
        assert named <= known, f"{path}: {named - known}"


def test_the_architecture_names_every_module_in_the_row_of_its_folder():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(vae/[\w/]*)`.*?\| (.*) \|$", text, re.MULTILINE))
    for folder in (ROOT / "vae").rglob("__init__.py"):
        modules = {path.name for path in folder.parent.glob("*.py")} - {"__init__.py"}
        name = f"{folder.parent.relative_to(ROOT)}/"
        assert set(re.findall(r"`(\w+\.py)`", rows[name])) == modules, name


def test_every_path_that_a_document_names_exists():
    documents = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    for document in documents:
        if document.name == "CHANGELOG.md":
            continue
        text = document.read_text(encoding="utf-8")
        for path in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|sh|md|yml))`", text):
            places = (ROOT, ROOT / "vae", ROOT / "tests")
            assert any((place / path).is_file() for place in places), f"{document.name}: {path}"


def weights_in(memory, users, items):
    try:
        return weights_per_item(users, items, memory)
    except UserError:
        return 0


def test_the_table_of_the_memory_of_ease_is_what_is_checked():
    text = (ROOT / "docs/recommending.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) GB \| (.*) \|$", text.replace(",", ""), re.MULTILINE)
    assert len(rows) == 4
    for size, cells in rows:
        memory = int(size) * 10**9
        cells = cells.replace("all", "100000").replace("refused", "0")
        baseline, *items, some, few = map(int, cells.split(" | "))
        check_memory("", 10**6, baseline, memory)
        for users, most in zip((10**6, 20_000), items, strict=True):
            assert weights_in(memory, users, most) == most
            assert weights_in(memory, users, most + 1000) < most
        assert weights_in(memory, 20_000, 100_000) == some
        assert weights_in(memory, 50_000, 200_000) == few
