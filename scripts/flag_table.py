"""Writes the tables of flags in README.md anew from the dataclasses that define the flags.

::

    python scripts/flag_table.py            # rewrite README.md in place
    python scripts/flag_table.py --check    # exit with 1 if that would change it

A table stands between ``<!-- flags:main.py -->`` (or another program's name) and
``<!-- /flags -->``.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from vae.config import Config
from vae.load.config import PrepareConfig

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TABLE = re.compile(r"(<!-- flags:(\S+) -->\n).*?(<!-- /flags -->)", re.DOTALL)


def main() -> int:
    """Rewrites or checks the tables; returns the exit code."""
    programs = {"main.py": Config, "prepare_dataset.py": PrepareConfig}
    old = README.read_text(encoding="utf-8")
    new = TABLE.sub(lambda found: found[1] + table(programs[found[2]]) + found[3], old)
    if "--check" in sys.argv[1:]:
        if new != old:
            print("README.md: the flags have changed; run python scripts/flag_table.py.")
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


def table(options: type) -> str:
    """A Markdown table with a row for each field, in groups as in ``--help``."""
    lines = ["| Flag | Default | Meaning |", "|---|---|---|"]
    group = None
    for field in dataclasses.fields(options):
        if field.metadata["group"] != group:
            group = field.metadata["group"]
            lines.append(f"| **{group}** | | |")
        lines.append(f"| `--{field.name}` | {default(field)} | {meaning(field)} |")
    return "\n".join(lines) + "\n"


def default(field: dataclasses.Field[Any]) -> str:
    """What holds without the flag: 'off' for a switch, 'none' where there is no value."""
    if field.default is None:
        return "none"
    return "off" if field.default is False else f"`{field.default}`"


def meaning(field: dataclasses.Field[Any]) -> str:
    """The help text, with the values to choose from; safe in a table's cell."""
    text: str = field.metadata["help"]
    choices = field.metadata["choices"]
    if choices:
        text += f" ({', '.join(f'`{choice}`' for choice in choices)})"
    return text.replace("|", r"\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
