"""What is published with the code agrees with it: version, citation, changelog, the package."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string

import pytest
from helpers import ROOT, run_script

from vae import __version__

NEEDED_FILES = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE")


@pytest.mark.parametrize("program", ["main.py", "prepare_dataset.py"])
def test_the_programs_print_the_version_of_the_package(program):
    done = run_script(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"{program} {__version__}\n")


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.*)$", citation, re.MULTILINE)
    (date,) = re.findall(r"^date-released: (\d{4}-\d\d-\d\d)$", citation, re.MULTILINE)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", changelog, re.MULTILINE)[1]
    assert newest in (f"{version} ({date})", f"Unreleased ({version})")
    assert version == __version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that ``pip install .`` builds, by the same hook and without a network."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in NEEDED_FILES:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "vae", folder / "vae", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    (folder / "tests/test_x.py").touch()
    code = "from hatchling.build import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return next((folder / "dist").glob("*.whl"))


def test_the_wheel_has_all_files_of_the_package_and_the_pins_of_requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        head = message_from_string(archive.read(metadata).decode())
    source = {path.relative_to(ROOT) for path in (ROOT / "vae").rglob("*.*") if path.is_file()}
    assert files == {path.as_posix() for path in source if path.suffix in (".py", ".j2")}
    pins = re.findall(r"^[\w-]+==\S+", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    assert len(pins) > 9
    assert sorted(head.get_all("Requires-Dist")) == sorted(pins)
    assert (head["Name"], head["Version"]) == ("vae-cf", __version__)


def test_the_package_recommends_from_another_folder(wheel, run, demo_data, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site-packages")
    code = (
        "import sys, vae\n"
        "assert 'site-packages' in vae.__file__, vae.__file__\n"
        "recommender = vae.Recommender.load(*sys.argv[1:], 'synthetic')\n"
        "print(len(recommender.recommend(recommender.dataset.item_ids[:2], k=7)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run[0] / "ckpt", demo_data],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site-packages")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
