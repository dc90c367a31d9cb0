"""datasets/fetch.py against a server on this machine: resumed, checked, and nothing unpacked outside of its folder."""

import hashlib
import http.server
import io
import runpy
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

SCRIPT = Path(__file__).parents[2] / "datasets" / "fetch.py"
CONTENT = bytes(range(256)) * 4000


class Server(http.server.SimpleHTTPRequestHandler):
    """Files with ranges; ``cut`` breaks the first answer off, as a lost connection does."""

    ranges: ClassVar[list[str]] = []
    cut = 0

    def do_GET(self):
        data = (Path(self.directory) / self.path.partition("?")[0].rsplit("/", 1)[-1]).read_bytes()
        asked = self.headers.get("Range", "")
        Server.ranges.append(asked)
        start = int(asked[6:-1]) if asked else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if Server.cut:
            body, Server.cut = body[: Server.cut], 0
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a folder that is laid out as a record of the publisher: /record/NUMBER/files/NAME."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "set.npz").write_bytes(CONTENT)
    Server.ranges, Server.cut = [], 0
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder)))
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{http_server.server_port}/record/1/files"
    http_server.shutdown()
    thread.join()
    http_server.server_close()


@pytest.fixture
def fetch():
    return runpy.run_path(str(SCRIPT))


MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_broken_connection_is_gone_on_with(server, fetch, tmp_path):
    _, address = server
    Server.cut = 100_000
    with pytest.raises(fetch["FetchError"], match="100000 of 1024000 bytes"):
        fetch["fetch"](f"{address}/set.npz?download=1", tmp_path / "out", "md5", MD5)
    assert not (tmp_path / "out" / "set.npz").exists()
    found = fetch["fetch"](f"{address}/set.npz?download=1", tmp_path / "out", "md5", MD5)
    assert found.read_bytes() == CONTENT and Server.ranges == ["", "bytes=100000-"]
    assert [path.name for path in found.parent.iterdir()] == ["set.npz"]
    fetch["fetch"](f"{address}/set.npz", tmp_path / "out", "md5", MD5)
    assert len(Server.ranges) == 2  # what is there and right is not fetched again


def test_what_is_not_what_it_should_be_gets_no_name(server, fetch, tmp_path):
    _, address = server
    with pytest.raises(fetch["FetchError"], match="its SHA256 is"):
        fetch["fetch"](f"{address}/set.npz", tmp_path / "out", "sha256", "0" * 64)
    assert not list((tmp_path / "out").iterdir())


def test_by_the_command_line(server, tmp_path):
    folder, address = server
    with zipfile.ZipFile(folder / "images.zip", "w") as file:
        file.writestr("subset0/a.mhd", "NDims = 3\n")
    words = [sys.executable, SCRIPT, f"{address}/images.zip", "-o", tmp_path / "out", "--unpack"]
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "--unchecked" in refused.stderr and not Server.ranges
    subprocess.run([*words, "--unchecked"], check=True, capture_output=True)
    assert (tmp_path / "out" / "images" / "subset0" / "a.mhd").read_text() == "NDims = 3\n"


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "C:\\out.txt", "..\\out.txt"])
def test_no_member_leaves_the_folder(name, fetch, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("fine.txt", "fine" * 50)
        file.writestr(zipfile.ZipInfo(name), "out")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo(name)
        member.size = 3
        file.addfile(member, io.BytesIO(b"out"))
    (tmp_path / "in").mkdir()
    for archive in ("a.zip", "b.tar.gz"):
        with pytest.raises(fetch["FetchError"], match="would leave the folder"):
            fetch["unpack"](tmp_path / archive, tmp_path / "in")
    assert not list((tmp_path / "in").iterdir()) and not (tmp_path / "out.txt").exists()


def test_links_and_bombs_are_refused(fetch, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        file.addfile(member)
    with pytest.raises(fetch["FetchError"], match="something else than files"):
        fetch["unpack"](tmp_path / "a.tar", tmp_path)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(50 << 20))
    with pytest.raises(fetch["FetchError"], match="would unpack to 50 MiB"):
        fetch["unpack"](tmp_path / "b.zip", tmp_path)
