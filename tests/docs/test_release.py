"""What is published with the code agrees with it: the version, the citation, the changelog."""

import re

import pytest
from helpers import ROOT, run_script

from vae import __version__


@pytest.mark.parametrize("program", ["main.py", "prepare_dataset.py"])
def test_the_programs_print_the_version_of_the_package(program):
    done = run_script(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"{program} {__version__}\n")


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [__version__]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", changelog, re.MULTILINE)[1]
    assert re.fullmatch(rf"(Unreleased \()?{re.escape(__version__)}\b.*", newest)
