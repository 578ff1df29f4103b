"""The requirements files: versions are exact, and the same wherever a package is named twice."""

import re

import pytest
from helpers import ROOT

FILES = sorted(ROOT.glob("requirements*.txt"))


def pins(path):
    """Package -> exact version, or address of an archive."""
    lines = re.findall(r"^[^#\n].*", path.read_text(encoding="utf-8"), re.MULTILINE)
    found = [re.fullmatch(r"([\w.-]+)(?:==| @ )(\S+)", line) for line in lines]
    assert all(found), f"{path.name}: neither NAME==VERSION nor NAME @ ADDRESS"
    return {pin[1].lower(): pin[2] for pin in found}


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("requirements.txt", "tensorflow-cpu"),
        ("requirements.txt", "numpy"),
        ("requirements.txt", "scipy"),
        ("requirements.txt", "pandas"),
        ("requirements-horovod.txt", "horovod"),
        ("requirements-dllogger.txt", "dllogger"),
    ],
)
def test_each_package_of_the_recipe_is_pinned(name, package):
    assert package in pins(ROOT / name)


def test_a_package_that_two_files_name_has_one_version():
    versions = {}
    for path in FILES:
        for package, version in pins(path).items():
            assert versions.setdefault(package, version) == version, f"{path.name}: {package}"


def test_no_tensorflow_is_needed_to_lint():
    assert not any("tensorflow" in package for package in pins(ROOT / "requirements-lint.txt"))
