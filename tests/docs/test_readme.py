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
    known = {*cli.flags(Config), *cli.flags(PrepareConfig), "help", "version"}
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for command in re.findall(r"(?:main|prepare_dataset)\.py((?:[^\n`]|\\\n)*)", text):
            unknown = set(re.findall(r"--(\w+)", command)) - known
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
