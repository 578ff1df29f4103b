"""Generate the tables of flags in docs/command-line.md from the dataclasses that define them.

::

    python scripts/flag_table.py            # rewrite the document in place
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

from vae.cli import flags_text, headed_flags
from vae.config import NAMED_VALUES, Config
from vae.load.config import PrepareConfig
from vae.utils.atomic import write_atomically

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/command-line.md"
TABLE = re.compile(r"(<!-- flags:(\S+) -->\n).*?(<!-- /flags -->)", re.DOTALL)


def main() -> int:
    """Rewrite or check the tables; return the exit code."""
    programs = {"main.py": Config, "prepare_dataset.py": PrepareConfig}
    old = DOCUMENT.read_text(encoding="utf-8")
    new = TABLE.sub(lambda found: found[1] + table(programs[found[2]]) + found[3], old)
    if "--check" in sys.argv[1:]:
        if new != old:
            print(f"{DOCUMENT.name}: the flags have changed; run python scripts/flag_table.py.")
        return int(new != old)
    write_atomically(DOCUMENT, new)
    return 0


def table(options: type) -> str:
    """Return a Markdown table with a row for each field, grouped as in ``--help``."""
    lines = ["| Flag | Default | Meaning |", "|---|---|---|"]
    group = None
    for heading, field, _ in headed_flags(options):
        if heading != group:
            group = heading
            lines.append(f"| **{group}** | | |")
        lines.append(f"| `--{field.name}` | {default(field)} | {meaning(field)} |")
        for choice, values in NAMED_VALUES.get(field.name, {}).items():
            lines.append(f"| `--{field.name} {choice}` | | stands for `{flags_text(values)}` |")
    return "\n".join(lines) + "\n"


def default(field: dataclasses.Field[Any]) -> str:
    """Return the default as the table shows it: 'off' for a switch, 'none' for no value."""
    if field.default is None:
        return "none"
    return "off" if field.default is False else f"`{field.default}`"


def meaning(field: dataclasses.Field[Any]) -> str:
    """Return the help text and the choices, escaped for a table cell."""
    text: str = field.metadata["help"]
    choices = field.metadata["choices"]
    if choices:
        text += f" ({', '.join(f'`{choice}`' for choice in choices)})"
    return text.replace("|", r"\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
