"""The documents agree with the program and with each other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from vae import cli
from vae.config import Config
from vae.load.config import PrepareConfig

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")


def rows(program):
    """The rows of a program's table of flags: name -> (default, meaning)."""
    document = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- flags:{program} -->\n(.*?)<!-- /flags -->", document, re.DOTALL)
    assert found, f"docs/command-line.md has no table for {program}"
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in found[1].splitlines())
    flags = ([cell.strip() for cell in row] for row in cells)
    return {
        name.strip("`").removeprefix("--"): (default.strip("`"), meaning)
        for name, default, meaning in flags
        if name.startswith("`--")
    }


@pytest.mark.parametrize(
    ("program", "options"), [("main.py", Config), ("prepare_dataset.py", PrepareConfig)]
)
def test_the_table_of_flags_is_that_of_the_program(program, options):
    table = rows(program)
    fields = {field.name: field for field in cli.flags(options).values()}
    assert list(table) == list(fields), "run python scripts/flag_table.py"
    words = {"None": "none", "False": "off"}
    for name, (default, meaning) in table.items():
        expected = str(fields[name].default)
        assert default == words.get(expected, expected), name
        help_text = fields[name].metadata["help"].replace("|", r"\|").replace("<", "&lt;")
        assert meaning.startswith(help_text), name
        for choice in fields[name].metadata["choices"] or ():
            assert f"`{choice}`" in meaning.removeprefix(help_text), name


def test_the_script_that_writes_the_tables_has_nothing_to_change():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/flag_table.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
    text = CODE.sub("", document.read_text(encoding="utf-8"))
    broken = [link for link in LINK.findall(text) if not resolves(document, link)]
    assert not broken


def test_flags_named_in_the_documents_exist():
    known = {
        field.name for field in (*cli.flags(Config).values(), *cli.flags(PrepareConfig).values())
    }
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for command in re.findall(r"(?:main|prepare_dataset)\.py((?:[^\n`]|\\\n)*)", text):
            unknown = set(re.findall(r"--(\w+)", command)) - known - {"help", "version"}
            assert not unknown, f"{document.name}: {unknown}"


def resolves(document: Path, link: str) -> bool:
    """Whether a link leads to a file of the repository, and to a heading if it names one."""
    if re.match(r"[a-z]+:", link):
        return True  # another site, not ours to check
    path, _, heading = link.partition("#")
    target = document.parent / path if path else document
    return target.exists() and (not heading or heading in anchors(target))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
