"""Metadata of the program."""

import re
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae.report import environment


def test_a_changed_line_of_the_code_changes_its_digest(tmp_path, monkeypatch):
    program = environment.program()
    assert program["the version of TensorFlow"] == tf.__version__
    assert program["the version of NumPy"] == np.__version__
    assert re.fullmatch("[0-9a-f]{12}", program["the digest of the code"])
    package = Path(environment.__file__).parents[1]
    copied = shutil.copytree(package, tmp_path / "another place")
    monkeypatch.setattr(environment, "__file__", str(copied / "report/environment.py"))
    assert environment.program() == program
    with (copied / "models/vae.py").open("a") as file:
        file.write("\n")
    assert environment.program() != program
