"""JSON files that hold a version and the SHA-256 digest of their own text.

Whatever differs in a byte from the file that was written is damaged: its values need no checks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vae.errors import one_line
from vae.utils.atomic import read_text

Parsed = TypeVar("Parsed")


class OtherFormatError(ValueError):
    """Another version of this program wrote the file."""


def seal(document: Mapping[str, Any]) -> str:
    """Return a document as JSON text that holds the SHA-256 digest of the document itself."""
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    return json.dumps({**document, "sha256": digest}, indent=2) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """Return the document that :func:`seal` made the text of, without its digest.

    Raises:
        ValueError: the text is not JSON, or differs from the sealed one in any byte.
        RecursionError: it is nested too deeply to be read.
    """
    document = _parse(text)
    document.pop("sha256", None)
    if seal(document) != text:
        raise ValueError("its checksum differs from the one written with it")
    return document


def read_sealed(
    path: Path, key: str, version: int, parse: Callable[[dict[str, Any]], Parsed]
) -> Parsed:
    """Return the parsed document of a file whose text :func:`seal` made.

    Args:
        path: the file.
        key: key of the version in the document.
        version: the version that can be read.
        parse: takes the document without version and digest; a ValueError, KeyError or TypeError
            of it means that the file is damaged.

    Raises:
        OSError: the file cannot be read or is not a regular file.
        OtherFormatError: the version is another one; the message says which.
        ValueError: the file is damaged; the message says so, and how.
    """
    try:
        text = read_text(path)
        found = _parse(text)[key]
        if found == version:
            document = unseal(text)
            del document[key]
            return parse(document)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        cause = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"is damaged ({cause})") from None
    raise OtherFormatError(
        f"was written in format {one_line(repr(found))}, this program reads {version}"
    )


def _parse(text: str) -> dict[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document
