"""``make audit``: findings, and what could not be looked up."""

import json
import subprocess

import pytest

from scripts import audit

FOUND = {
    "name": "numpy",
    "version": "1",
    "vulns": [{"id": "CVE-1", "fix_versions": ["2"], "description": "Reads\n  too far."}],
}
CLEAN = {"name": "scipy", "version": "1", "vulns": []}
SKIPPED = {"name": "pooch", "skip_reason": "not found"}


def pip_audit_that_prints(monkeypatch, stdout, stderr=""):
    done = subprocess.CompletedProcess([], 0, stdout, stderr)
    monkeypatch.setattr(audit.subprocess, "run", lambda *args, **kwargs: done)


@pytest.mark.parametrize(
    ("packages", "code", "expected"),
    [
        ([CLEAN], 0, "audit: complete; 1 looked up, known vulnerabilities: 0"),
        ([FOUND, CLEAN], 1, "numpy 1: CVE-1, fixed in 2\n    Reads too far."),
        ([FOUND, SKIPPED], 1, "audit: INCOMPLETE: 1 of 2 not looked up; 1 looked up"),
        (
            [CLEAN, SKIPPED],
            2,
            "Not looked up: pooch\nLooked up at https://pypi.org/pypi/NAME/VERSION/json: not found",
        ),
        ([SKIPPED], 2, "none of 1 packages could be looked up; this says nothing"),
    ],
    ids=["clean", "found", "found and skipped", "clean and skipped", "all skipped"],
)
def test_an_audit_says_what_it_found_and_what_it_did_not_reach(
    monkeypatch, capsys, packages, code, expected
):
    pip_audit_that_prints(monkeypatch, json.dumps({"dependencies": packages}))
    assert audit.main() == code
    assert expected in capsys.readouterr().out


def test_an_audit_without_a_network_says_so(monkeypatch, capsys):
    pip_audit_that_prints(monkeypatch, "", "Traceback\nConnectionError: no route to pypi.org\n")
    assert audit.main() == 2
    assert "no package could be looked up: ConnectionError: no route" in capsys.readouterr().out


def test_pins_keep_their_markers_and_lose_their_hashes(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text(
        "# made by uv\na==1 \\\n    --hash=sha256:00\n"
        "b-c==2.0 ; python_full_version < '3.11' \\\n    --hash=sha256:11\nd==3 --hash=sha256:22\n"
    )
    assert audit.read_pins(path) == ["a==1", "b-c==2.0 ; python_full_version < '3.11'", "d==3"]
