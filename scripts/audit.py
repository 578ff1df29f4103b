"""List known vulnerabilities of the packages that are installed by default.

::

    make audit

pip-audit compares the versions in requirements.lock and requirements-horovod.txt with the
advisories that PyPI publishes. It exits with 0 even if it could look up no package; this script
says which ones it could not. Exit codes: 0 no known vulnerability, 1 at least one, 2 none, but not
all packages could be looked up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILES = ("requirements.lock", "requirements-horovod.txt")


def main() -> int:
    """Audit, print the findings and what was not audited; return the exit code."""
    pins = [pin for name in FILES for pin in read_pins(ROOT / name)]
    try:
        packages = run_pip_audit(pins)
    except ValueError as error:
        print(f"audit: no package could be looked up: {error}")
        return 2
    skipped = [package for package in packages if "skip_reason" in package]
    findings = [(package, finding) for package in packages for finding in package.get("vulns", [])]
    for package, finding in findings:
        fixed = ", ".join(finding["fix_versions"]) or "no release"
        print(f"{package['name']} {package['version']}: {finding['id']}, fixed in {fixed}")
        print(f"    {' '.join(finding['description'].split())[:300]}")
    print(summary(len(packages), len(skipped), len(findings)))
    if skipped:
        print(f"Not looked up: {', '.join(package['name'] for package in skipped)}")
        print(f"Looked up at https://pypi.org/pypi/NAME/VERSION/json: {skipped[0]['skip_reason']}")
    return 1 if findings else 2 if skipped else 0


def read_pins(path: Path) -> list[str]:
    """Return the lines ``NAME==VERSION`` of a file, with markers but without hashes."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^[\w.-]+==\S+(?: ; [^\\\n]+(?<! ))?", text, re.MULTILINE)


def run_pip_audit(pins: list[str]) -> list[dict[str, Any]]:
    """Return pip-audit's list of packages.

    Raises:
        ValueError: if it has none; the last line of its output says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("\n".join(pins), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off"]
        command += ["--disable-pip", "--no-deps", "--format", "json", "--requirement", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1] if lines else f"pip-audit exits with {done.returncode}")
    packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return packages


def summary(packages: int, skipped: int, findings: int) -> str:
    """Return one line on the whole audit."""
    if skipped == packages:
        return (
            f"audit: INCOMPLETE: none of {packages} packages could be looked up; "
            "this says nothing about vulnerabilities"
        )
    state = f"INCOMPLETE: {skipped} of {packages} not looked up" if skipped else "complete"
    return f"audit: {state}; {packages - skipped} looked up, known vulnerabilities: {findings}"


if __name__ == "__main__":
    sys.exit(main())
