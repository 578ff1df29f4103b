"""The Parquet file of --export_items."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from helpers import run_main


def test_each_item_has_its_id_title_and_column_of_the_last_kernel(
    on_model, dataset, weights, tmp_path
):
    titles = {item: f"The {item}" for item in dataset.item_ids[::2].tolist()}
    frame = pd.DataFrame({"movieId": titles.keys(), "title": titles.values()})
    frame.to_csv(tmp_path / "films.csv", index=False)
    path = tmp_path / "new/items.parquet"
    code, out, err = on_model("--export_items", path, "--item_names", tmp_path / "films.csv")
    assert code == 0, err
    assert f"Item vectors: 1,200 items of 64 dimensions: {path}" in out
    table = pa_parquet.read_table(path)
    assert table.schema.names == ["id", "title", "vector"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 64)
    assert table["id"].to_pylist() == dataset.item_ids.tolist()
    assert table["title"].to_pylist() == [titles.get(item) for item in dataset.item_ids.tolist()]
    kernel = weights["decoder/items/kernel"]
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), kernel[:, :1200].T)
    assert [file.name for file in path.parent.iterdir()] == ["items.parquet"]


def test_without_titles_there_is_no_column_of_them(on_model, tmp_path):
    code, _, err = on_model("--export_items", tmp_path / "items.parquet")
    assert code == 0, err
    assert pa_parquet.read_schema(tmp_path / "items.parquet").names == ["id", "vector"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["i.csv"], "--export_items i.csv: the name must end in .parquet"),
        (["a.parquet", "--item_names", "a.parquet"], "would overwrite the file of --item_names"),
        (
            ["a.parquet", "--recommend", "--output", "./a.parquet"],
            "--output a.parquet: would overwrite the file of --export_items",
        ),
    ],
)
def test_names_that_cannot_be_are_refused(flags, sentence):
    code, _, err = run_main("--checkpoint_dir", "c", "--export_items", *flags)
    assert code == 2
    assert sentence in err


def test_a_file_that_cannot_be_written_is_refused_before_the_model_is_loaded(on_model, tmp_path):
    (tmp_path / "i.parquet").mkdir()
    code, out, err = on_model("--export_items", tmp_path / "i.parquet")
    assert code == 2
    assert "i.parquet: is a folder; name a file" in err
    assert "Loaded checkpoint" not in out
