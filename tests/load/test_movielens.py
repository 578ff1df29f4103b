"""--download from a local server: complete files, or one sentence that says why not."""

import csv
import hashlib
import io
import os
import pty
import socket
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from helpers import run_prepare, run_script

from vae.errors import UserError
from vae.load import movielens as module
from vae.load.movielens import obtain
from vae.load.store import open_dataset

RATINGS = b"userId,movieId,rating,timestamp\r\n" + b"".join(
    b"%d,%d,%.1f,1112486027\r\n" % (user, item, 0.5 + (user * item) % 10 / 2)
    for user in range(1, 120)
    for item in range(1, 60)
    if (user * 7 + item) % 3
)
MOVIES = b'movieId,title,genres\r\n1,"Caf\xc3\xa9, The (1995)",Drama\r\n'
FILES = {"README.txt": b"Conditions.\n", "movies.csv": MOVIES, "ratings.csv": RATINGS}


def archive(files=FILES, name="ml-20m", compression=zipfile.ZIP_STORED):
    """Return the zip archive of a data set."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as members:
        for member, content in files.items():
            members.writestr(f"{name}/{member}", content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves files from memory; its faults can be set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.cuts = []  # bytes after which to cut the next downloads of an archive
        self.answers = {}  # path -> bytes of the whole answer
        self.requests = []  # paths

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def offer(self, content, name="ml-20m", checksum=None):
        self.files[f"/{name}.zip"] = content
        digest = checksum or hashlib.md5(content).hexdigest()
        self.files[f"/{name}.zip.md5"] = f"MD5 ({name}.zip) = {digest}\n".encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content = self.server, self.server.files.get(self.path)
        server.requests.append(self.path)
        if self.path in server.answers:
            self.wfile.write(server.answers[self.path])
            return
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if server.cuts and self.path.endswith(".zip"):
            content = content[: server.cuts.pop(0)]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ml-20m/extracted/ml-20m"


def fetch(server, folder, name="ml-20m"):
    """Return the lines of a successful download."""
    said = []
    obtain(name, None, server.address, folder, said.append)
    return said


def problem(server, folder, name="ml-20m"):
    """Return the message of a download that fails."""
    with pytest.raises(UserError) as caught:
        obtain(name, None, server.address, folder, lambda _: None)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert not (folder / "ratings.csv").exists()
    return str(caught.value)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left_over(folder):
    """Return the names beside the extracted files."""
    return [path.name for path in folder.parents[1].iterdir() if path.name != "extracted"]


def test_a_data_set_is_fetched_checked_and_unpacked_once(server, folder):
    server.offer(archive())
    said = fetch(server, folder)
    assert "claim no endorsement" in said[0]
    assert "research" in said[0]
    assert said[1] == f"Downloading {server.address}/ml-20m.zip."
    assert "as published" in said[2]
    assert content(folder) == FILES
    assert left_over(folder) == []
    requests = len(server.requests)
    assert fetch(server, folder) == [f"{folder} is already downloaded."]
    assert len(server.requests) == requests


def test_a_cut_download_starts_again_and_one_cut_every_time_leaves_nothing(server, folder):
    server.files["/ml-20m.zip"] = archive()
    server.cuts = [1000] * 20
    assert "1000 bytes read" in problem(server, folder)
    assert left_over(folder) == []
    server.answers["/ml-20m.zip"] = OK + b"\r\n" + archive()[:-1]  # without a Content-Length
    assert "not a whole zip archive" in problem(server, folder)
    assert left_over(folder) == []
    server.answers, server.cuts, server.requests = {}, [1000, 50_000], []
    fetch(server, folder)
    assert content(folder) == FILES
    assert server.requests.count("/ml-20m.zip") == 3


def test_what_a_killed_download_left_is_removed(server, folder):
    server.offer(archive())
    killed = folder.parents[1] / ".writing-01234567"
    killed.mkdir(parents=True)
    (killed / "tmp").write_bytes(b"x")
    fetch(server, folder)
    assert left_over(folder) == []


def test_a_wrong_checksum_is_told_and_nothing_is_kept(server, folder):
    whole = archive()
    server.offer(whole, checksum="0" * 32)
    digest = hashlib.md5(whole).hexdigest()
    assert f"expected md5:{'0' * 32} but got {digest})" in problem(server, folder)
    assert left_over(folder) == []


@pytest.mark.parametrize("published", [None, b"", b"<html>no checksum here</html>"])
def test_without_a_published_checksum_the_archives_own_are_checked(server, folder, published):
    whole = archive()
    damaged = whole.replace(b"1112486027", b"1112486028", 1)
    server.files = {"/ml-20m.zip": damaged}
    if published is not None:
        server.files["/ml-20m.zip.md5"] = published
    assert "Bad CRC-32" in problem(server, folder)
    (folder.parents[1] / "ml-20m.zip").unlink()
    server.files["/ml-20m.zip"] = whole
    assert "only the checksums inside the archive" in fetch(server, folder)[2]
    assert content(folder) == FILES


def test_a_missing_file_on_the_server_is_told_with_its_address(server, folder):
    sentence = problem(server, folder)
    assert sentence.startswith(f"{server.address}/ml-20m.zip: cannot be downloaded (")
    assert "404" in sentence


def test_without_a_network_a_sentence_says_what_to_do_by_hand(server, folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(UserError) as caught:
        obtain("ml-20m", None, nobody, folder, lambda _: None)
    sentence = str(caught.value)
    assert sentence.startswith(f"{nobody}/ml-20m.zip: cannot be downloaded (")
    place = folder.parents[1] / "ml-20m.zip"
    assert "refused" in sentence
    assert f"save the file as {place}" in sentence
    saved = archive()
    place.write_bytes(saved)
    fetch(server, folder)
    assert content(folder) == FILES
    assert place.read_bytes() == saved  # which the program did not download


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LONG_HOST = "a" * 70 + ".example"
RUBBISH = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "long reason": b"HTTP/1.1 500 a\rb\x1b[31m" + b"c" * 10_000 + b"\r\n\r\n",
    "negative length": CHUNKED + b"-5\r\ncontent\r\n0\r\n\r\n",
    "length too large": CHUNKED + b"-" + b"f" * 40 + b"\r\ncontent\r\n0\r\n\r\n",
    "long host": b"HTTP/1.1 302 Found\r\nLocation: http://%b/\r\n\r\n" % LONG_HOST.encode(),
}
"""Responses that hold no file, one for each kind of error that they cause."""


@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH)
def test_an_answer_that_makes_no_sense_is_one_sentence(server, folder, answer):
    for path in ("/ml-20m.zip", "/ml-20m.zip.md5"):
        server.answers[path] = answer
        sentence = problem(server, folder)
        assert sentence.startswith(f"{server.address}/ml-20m.zip: cannot be downloaded (")
        assert sentence.isprintable()
        assert len(sentence) < 600
        assert left_over(folder) == []


@pytest.mark.parametrize("mirror", [f"http://{LONG_HOST}", "http://[::1", "http://127.0.0.1:x"])
def test_an_address_that_makes_no_sense_is_one_sentence(mirror, folder):
    with pytest.raises(UserError) as caught:
        obtain("ml-20m", None, mirror, folder, lambda _: None)
    assert caught.value.exit_code == 1
    assert "/ml-20m.zip: cannot be downloaded (" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("whole", "complaint"),
    [
        (b"no archive", "not a zip file"),
        (archive(compression=zipfile.ZIP_LZMA), "unsupported compression of README.txt"),
        (archive(name="ml-1m"), "ml-20m/README.txt"),
    ],
    ids=["no archive", "another method", "another data set"],
)
def test_another_archive_is_refused(server, folder, whole, complaint):
    folder.mkdir(parents=True)
    (folder.parents[1] / "ml-20m.zip").write_bytes(whole)
    sentence = problem(server, folder)
    assert "is not the archive of ml-20m" in sentence
    assert complaint in sentence
    assert server.requests == []


def test_a_member_that_would_fill_the_disk_is_refused(server, folder, monkeypatch):
    monkeypatch.setattr(module, "_MAX_MEMBER_BYTES", len(RATINGS) - 1)
    server.offer(archive(compression=zipfile.ZIP_DEFLATED))
    assert f"ratings.csv has {len(RATINGS):,} bytes" in problem(server, folder)


def test_only_the_named_members_are_written(server, folder, tmp_path):
    server.offer(archive({"../../../evil": b"1", "/evil": b"2", "tags.csv": b"3", **FILES}))
    fetch(server, folder)
    assert content(folder) == FILES
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in written) == sorted(FILES)


OLDER = {
    "ml-100k": {
        "README": b"Conditions.\n",
        "u.item": '1|Caf\u00e9, The (1995)|01-Jan-1995||http://x|0|1\n2|"Heat"\n'.encode("latin-1"),
        "u.data": b"1\t1\t5\t978300760\n6040\t2\t3\t956704746\n",
    },
    "ml-1m": {
        "README": b"Conditions.\n",
        "movies.dat": '1::Caf\u00e9, The (1995)::Drama|War\n2::"Heat"::\n'.encode("latin-1"),
        "ratings.dat": b"1::1::5::978300760\n6040::2::3::956704746\n",
    },
    "ml-10m": {
        "README.html": b"<html>",
        "movies.dat": '1::Caf\u00e9, The (1995)::Drama|War\n2::"Heat"::\n'.encode(),
        "ratings.dat": b"1::1::5::978300760\n6040::2::3::956704746\n",
    },
}


@pytest.mark.parametrize("name", OLDER)
def test_an_older_archive_that_is_there_is_brought_into_the_form_of_20m_and_stays(name, tmp_path):
    path = tmp_path / "any.zip"
    path.write_bytes(archive(OLDER[name], {"ml-10m": "ml-10M100K"}.get(name, name)))
    folder, said = tmp_path / "extracted", []
    for _ in range(2):
        obtain(name, path, "", folder, said.append)
    assert path.exists()
    assert said[0].startswith("MovieLens belongs to GroupLens")
    assert said[1:] == [f"Unpacked any.zip to {folder}.", f"{folder} is already unpacked."]
    assert (folder / "ratings.csv").read_text() == (
        "userId,movieId,rating,timestamp\n1,1,5,978300760\n6040,2,3,956704746\n"
    )
    genres = [["genres"], ["Drama|War"], [""]] if name != "ml-100k" else [[], [], []]
    titles = [["movieId", "title"], ["1", "Caf\u00e9, The (1995)"], ["2", '"Heat"']]
    with (folder / "movies.csv").open(encoding="utf-8", newline="") as file:
        rows = [title + genre for title, genre in zip(titles, genres, strict=True)]
        assert list(csv.reader(file)) == rows


def test_an_archive_that_is_missing_or_another_one_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.zip: file not found\.$"):
        obtain("ml-1m", tmp_path / "gone.zip", "", tmp_path / "x", lambda _: None)
    (tmp_path / "other.zip").write_bytes(archive())
    with pytest.raises(UserError, match=r"other\.zip: is not the archive of ml-1m"):
        obtain("ml-1m", tmp_path / "other.zip", "", tmp_path / "x", lambda _: None)


def test_an_archive_is_prepared_by_one_command(tmp_path):
    (tmp_path / "any.zip").write_bytes(archive())
    flags = ("--archive", tmp_path / "any.zip", "--data_dir", tmp_path, "--heldout_users", 10)
    done = run_prepare(*flags)
    assert done.returncode == 0, done.stderr
    open_dataset(tmp_path, "ml-20m")


def flags_for(server, data_dir):
    return (
        "--download", "--mirror", server.address, "--data_dir", data_dir, "--heldout_users", 10,
    )  # fmt: skip


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(server, tmp_path):
    server.offer(archive())
    # Measuring coverage would need the disk as well.
    full = ("bash", "-c", 'unset COVERAGE_PROCESS_CONFIG; ulimit -f 8; exec "$@"', "--")
    done = run_script("prepare_dataset.py", *flags_for(server, tmp_path), launcher=full)
    assert done.returncode == 1
    assert "cannot be written (File too large)" in done.stderr
    assert done.stderr.count("\n") == 1
    done = run_prepare(*flags_for(server, tmp_path))
    assert done.returncode == 0, done.stderr
    open_dataset(tmp_path, "ml-20m")
    again = run_prepare(*flags_for(server, tmp_path))
    assert "is already downloaded" in again.stdout
    assert "is already prepared" in again.stdout


def test_a_terminal_shows_a_bar(server, folder, monkeypatch):
    server.offer(archive())
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as shown, os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        fetch(server, folder)
        stderr.flush()
        text = b""
        while b"100%" not in text:  # a read may bring a piece alone
            text += shown.read(10_000)
