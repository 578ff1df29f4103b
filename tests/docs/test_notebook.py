"""The notebook of docs/tutorial.md runs, on the model of the tests."""

import ast
import re
import shutil

import pandas as pd
from helpers import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run_cell(code, names):
    """Runs a cell as a notebook does: the value of its last line, None unless an expression."""
    *statements, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        statements.append(last)
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return None


def test_the_cells_of_the_notebook_run_in_order(run, demo_data, tmp_path, monkeypatch):
    raw = demo_data / "synthetic/extracted/synthetic"
    shutil.copytree(demo_data / "synthetic/preprocessed", tmp_path / "data/mine/preprocessed")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/mine").symlink_to(run[0] / "ckpt")
    (tmp_path / "titles.csv").symlink_to(raw / "movies.csv")
    (tmp_path / "ratings.csv").symlink_to(raw / "ratings.csv")
    monkeypatch.chdir(tmp_path)
    cells = BLOCK.findall((ROOT / "docs/tutorial.md").read_text(encoding="utf-8"))
    names = {}
    results = [run_cell(cell, names) for cell in cells]
    recommended, explained, denied, allowed, (coverage, most), similar = results
    assert list(recommended) == ["userId", "movieId", "rank", "score", "source", "title"]
    assert recommended.userId.tolist() == ["ann", "ann", "bob", "bob"]
    assert explained.explanation.str.startswith("Film ").all()
    assert not set(denied.movieId) & {39, 1708}
    assert set(allowed.userId) == {"ann"}
    assert set(allowed.movieId) == {1410, 5210}
    assert coverage > 100
    assert len(most) == len(similar) == 3
    assert all(isinstance(table, pd.DataFrame) for table in (*results[:4], similar))
