"""What is published with the code agrees with it: the version, the citation, the changelog."""

import re
import subprocess
import sys
import zipfile
from datetime import date

import pytest
from helpers import ROOT, run_script

from vae import __version__


@pytest.mark.parametrize("program", ["main.py", "prepare_dataset.py"])
def test_the_programs_print_the_version_of_the_package(program):
    done = run_script(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"{program} {__version__}\n")


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", changelog, re.MULTILINE)[1]
    cited = dict(re.findall(r"^(version|date-released): (.*)$", citation, re.MULTILINE))
    assert newest == f"{cited['version']} ({cited['date-released']})"
    assert cited["version"] == __version__
    assert date.fromisoformat(cited["date-released"])


@pytest.mark.slow  # builds in an environment of its own, from the package registry
def test_pip_installs_the_whole_package_with_the_pinned_requirements(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path]
    subprocess.run([*build, ROOT], check=True)
    (wheel,) = map(zipfile.ZipFile, tmp_path.glob("*.whl"))
    metadata = wheel.read(f"vae_cf-{__version__}.dist-info/METADATA").decode()
    pinned = re.findall("^[a-z].*==.*", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert sorted(re.findall("Requires-Dist: (.*)", metadata)) == sorted(pinned)
    tracked = subprocess.check_output(["git", "ls-files", "vae"], cwd=ROOT, text=True)
    assert {name for name in wheel.namelist() if name.startswith("vae/")} == set(tracked.split())
    wheel.extractall(tmp_path / "installed")
    face = "import vae; print(vae.Recommender.__module__, vae.__file__)"
    command = [sys.executable, "-c", face]
    where = {"cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path / "installed")}}
    printed = subprocess.check_output(command, text=True, **where)
    assert printed.split() == ["vae.recommend.recommender", f"{tmp_path}/installed/vae/__init__.py"]
