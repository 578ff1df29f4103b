"""report.html: complete and self-contained."""

import base64
import re
from html.parser import HTMLParser

from vae import cli
from vae.config import Config
from vae.report.html import report_page

PNG = b"\x89PNG rest of an image"
SUMMARY = {
    f"{kind}_{name}{suffix}": error if suffix else mean
    for kind, mean, error in (
        ("test", 0.25, 0.01),
        ("popularity", 0.125, 0.02),
        ("test_minus_popularity", 0.125, 0.003),
        ("ease", 0.3, 0.02),
        ("test_minus_ease", -0.05, 0.003),
    )
    for name in ("ndcg@100", "recall@20", "recall@50")
    for suffix in ("", "_se")
} | {
    "test_coverage@100": 0.5, "popularity_coverage@100": 0.25, "ease_coverage@100": 0.125,
    "test_ndcg@100_quartile_1": 0.2, "test_ndcg@100_quartile_1_se": 0.03,
    "popularity_ndcg@100_quartile_1": 0.1, "popularity_ndcg@100_quartile_1_se": 0.03,
    "ease_ndcg@100_quartile_1": 0.3, "ease_ndcg@100_quartile_1_se": 0.03,
    "test_users": 500, "mean_training_throughput": 123456.7,
}  # fmt: skip


def page(summary=SUMMARY, epochs=(1, 2), **flags):
    config = Config.of(train=True, **flags)
    return report_page(config, summary, {"loss": PNG}, list(epochs), {"Hardware": {"cores": "2"}})


def text(html):
    """Text of a page, with blanks between elements."""
    parts = []
    parser = HTMLParser()
    parser.handle_data = parts.append
    parser.feed(html)
    return " ".join(" ".join(parts).split())


def test_nothing_is_loaded_from_elsewhere():
    html = page()
    assert not re.search(r"https?:|<script|<link|@import|url\(", html)
    sources = re.findall(r'src="([^"]*)"', html)
    assert sources == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]


def test_the_model_is_compared_with_every_baseline_user_by_user():
    shown = text(page())
    assert "model most popular model - most popular EASE model - EASE" in shown
    assert (
        "ndcg@100 0.25000 ± 0.01000 0.12500 ± 0.02000 +0.12500 ± 0.00300 "
        "0.30000 ± 0.02000 -0.05000 ± 0.00300" in shown
    )
    assert "ndcg@100_quartile_1 0.20000 ± 0.03000 0.10000 ± 0.03000 0.30000 ± 0.03000" in shown
    assert "coverage@100 0.5 0.25 0.125" in shown
    assert "item-kNN" not in shown


def test_without_a_test_the_page_says_how_to_get_one():
    assert "not tested; add --test" in text(page({"final_ndcg@100": 0.25}))


def test_statistics_have_their_units():
    assert "mean_training_throughput 123,457 users/s" in text(page())


def test_every_flag_is_listed_and_those_that_were_changed_are_marked():
    html = page(lr=0.5)
    for field in cli.flags(Config).values():
        assert f"<th>--{field.name}</th>" in html
    assert '<tr class="changed"><th>--lr</th><td>0.5</td></tr>' in html
    assert "<tr><th>--seed</th><td>0</td></tr>" in html
    assert "<tr><th>--amp</th><td>off</td></tr>" in html


def test_names_are_text_and_never_markup():
    assert "<b>plays" not in page(dataset="<b>plays")


def test_curves_that_do_not_begin_with_the_training_say_so():
    assert "Epochs 3 to 4; earlier ones were not recorded here." in text(page(epochs=(3, 4)))
    assert "Epochs 1 to 2." in text(page())
    assert "epochs.csv in this folder has no rows" in text(page(epochs=()))
