"""The requirements files: versions are exact, and the same wherever a package is named twice."""

import re

import pytest
from helpers import ROOT
from packaging.markers import Marker

FILES = sorted(ROOT.glob("requirements*.txt"))
HASH = r"--hash=sha256:[0-9a-f]{64}"


def pins(path):
    """Package -> exact version, or address of an archive."""
    lines = re.findall(r"^[^#\n].*", path.read_text(encoding="utf-8"), re.MULTILINE)
    found = [re.fullmatch(rf"([\w.-]+)(?:==| @ )(\S+)(?: {HASH})?", line) for line in lines]
    assert all(found), f"{path.name}: neither NAME==VERSION nor NAME @ ADDRESS"
    return {pin[1].lower(): pin[2] for pin in found}


def test_each_package_of_the_recipe_is_pinned():
    assert {"tensorflow-cpu", "numpy", "scipy", "pandas"} <= set(pins(ROOT / "requirements.txt"))
    for package in ("horovod", "dllogger"):
        assert package in pins(ROOT / f"requirements-{package}.txt")


def test_a_package_that_two_files_name_has_one_version():
    versions = {}
    for path in FILES:
        for package, version in pins(path).items():
            assert versions.setdefault(package, version) == version, f"{path.name}: {package}"


def test_no_tensorflow_is_needed_to_lint():
    assert not any("tensorflow" in package for package in pins(ROOT / "requirements-lint.txt"))


def test_horovods_source_archive_is_pinned_by_its_hash():
    lines = (ROOT / "requirements-horovod.txt").read_text(encoding="utf-8")
    assert re.search(rf"^horovod==\S+ {HASH}$", lines, re.MULTILINE)


def locked():
    """The entries of requirements.lock: (package, version, marker or None, hashes)."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(
        r"^([\w.-]+)==(\S+)(?: ; (.+))? ((?:\\\n\s+--hash=\S+ ?)+)$", text, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^[^#\s]", text, re.MULTILINE)), "an unknown line"
    return entries


def test_the_lock_has_the_versions_of_requirements_and_a_hash_of_each_archive():
    entries = locked()
    assert all(re.fullmatch(rf"(?:\\\s+{HASH}\s*)+", hashes) for *_, hashes in entries)
    everywhere = {name: version for name, version, marker, _ in entries if not marker}
    assert pins(ROOT / "requirements.txt").items() <= everywhere.items()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lock_names_each_package_once_for_each_python(python):
    environment = {"python_full_version": f"{python}.1", "sys_platform": "linux"}
    names = [
        name
        for name, _, marker, _ in locked()
        if not marker or Marker(marker).evaluate(environment)
    ]
    assert len(names) == len(set(names))
    assert {"absl-py", "keras", "numpy", "protobuf", "pillow"} <= set(names)


def test_the_newest_python_is_the_same_wherever_it_is_named():
    def found(name, pattern):
        return re.search(pattern, (ROOT / name).read_text(encoding="utf-8"))[1]

    newest = int(found("Makefile", r"NEWEST_MINOR := .*,(\d+)\)\)"))
    assert int(found("pyproject.toml", r'requires-python = ">=3.10,<3.(\d+)"')) == newest + 1
    for name in ("README.md", "requirements.txt"):
        assert int(found(name, r"Python 3\.10 to 3\.(\d+)")) == newest
