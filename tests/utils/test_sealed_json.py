"""Sealed JSON files: they come back, and whatever was done to one is noticed."""

import re

import pytest

from vae.utils.sealed_json import OtherFormatError, read_sealed, seal

VALUES = {"step": 7, "loss": 1 / 3, "path": "\N{SNOWMAN}"}
TEXT = seal({"format": 3, **VALUES})


def parsed(path, text, parse=dict):
    path.write_text(text, encoding="utf-8")
    return read_sealed(path, "format", 3, parse)


def test_a_document_comes_back_without_its_version_and_digest(tmp_path):
    assert parsed(tmp_path / "state.json", TEXT) == VALUES


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (TEXT.replace("7", "8", 1), "its checksum differs from the one written with it"),
        (TEXT.rstrip(), "its checksum differs"),
        (f" {TEXT}", "its checksum differs"),
        (TEXT[:-9], "Unterminated"),
        ("", "Expecting value"),
        ("7", "not subscriptable"),
        ("[]", "list indices"),
        ("{}", "format is missing"),
        ("[" * 10**5, "maximum recursion depth"),
    ],
)
def test_any_change_to_the_text_is_damage(tmp_path, text, cause):
    with pytest.raises(ValueError, match=re.escape(cause)):
        parsed(tmp_path / "state.json", text)


def test_what_the_reader_of_the_document_cannot_use_is_damage(tmp_path):
    with pytest.raises(ValueError, match="epoch is missing"):
        parsed(tmp_path / "state.json", TEXT, lambda document: document["epoch"])


@pytest.mark.parametrize("version", [2, 4, "3", None, [3]])
def test_another_format_is_named_whatever_seals_it(tmp_path, version):
    text = seal({"format": version, **VALUES}).replace("7", "8", 1)
    message = re.escape(f"was written in format {version!r}, this program reads 3")
    with pytest.raises(OtherFormatError, match=message):
        parsed(tmp_path / "state.json", text)
