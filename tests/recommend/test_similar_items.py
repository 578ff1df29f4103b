"""Nearest items by the decoder's item vectors."""

import numpy as np

from vae.load.store import open_dataset
from vae.recommend.similar_items import nearest_items


def test_the_nearest_vectors_point_the_same_way_whatever_their_length():
    kernel = np.array([[1, 9, 1, 0, -1], [0, 1, 1, 1, 0]], np.float32)
    neighbours, cosines = nearest_items(kernel, 0, 4)
    assert neighbours.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(cosines, [9 / np.sqrt(82), np.sqrt(0.5), 0, -1], atol=1e-6)


def test_the_command_lists_raw_ids_with_titles(on_model, demo_data, tmp_path):
    ids = open_dataset(demo_data, "synthetic").item_ids
    names = "".join(f"{item},The {item}\n" for item in ids)
    (tmp_path / "films.csv").write_text(f"movieId,title\n{names}")
    done = on_model("--similar_items", ids[5], "--item_names", tmp_path / "films.csv")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout[done.stdout.index("Nearest to item") :].splitlines()
    assert first == f"Nearest to item {ids[5]} The {ids[5]}, by cosine:"
    cosines, items = zip(*(line.split()[:2] for line in lines[:10]), strict=True)
    assert list(cosines) == sorted(cosines, key=float, reverse=True)
    assert set(items) <= set(map(str, ids)) - {str(ids[5])}
    assert lines[0].endswith(f"The {items[0]}")
