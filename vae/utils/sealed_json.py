"""JSON files that hold a version and the SHA-256 digest of their own text.

What differs in a byte from the text that was written is damaged: no value needs another check.
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
    """Return a document as JSON text that holds its digest; an earlier digest is replaced."""
    values = {name: value for name, value in document.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return json.dumps({**values, "sha256": digest}, indent=2) + "\n"


def read_sealed(
    path: Path, key: str, version: int, parse: Callable[[dict[str, Any]], Parsed]
) -> Parsed:
    """Return what ``parse`` makes of a file whose text :func:`seal` made.

    The document has its version under ``key``. ``parse`` takes it without version and digest, and
    refuses it as damaged by a ValueError, KeyError or TypeError.

    Raises:
        OSError: the file cannot be read or is not a regular file.
        OtherFormatError: the version is another one; the message says which.
        ValueError: the file is damaged; the message is the cause.
    """
    try:
        text = read_text(path)
        document = json.loads(text)
        found = document[key]
        if found == version:
            if seal(document) != text:
                raise ValueError("its checksum differs from the one written with it")
            return parse({k: v for k, v in document.items() if k not in (key, "sha256")})
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None
    except (TypeError, RecursionError) as error:
        raise ValueError(error) from None
    raise OtherFormatError(
        f"was written in format {one_line(repr(found))}, this program reads {version}"
    )
