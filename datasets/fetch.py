"""Fetch a public set, only when asked to, by plain HTTP: resumed where it stopped, checked, unpacked safely.

    python datasets/fetch.py list
    python datasets/fetch.py pneumoniamnist -o data
    python datasets/fetch.py https://HOST/PATH/FILE.zip -o data --md5 DIGEST

What a publisher gives out only after a registration or an agreement (LIDC-IDRI, CheXpert, NIH, RSNA, COVIDx) is not
fetched: its card says where to ask. A file is written under the name FILE.partial, which the next call goes on with,
and gets its own name when its checksum is right; ``--unpack`` then unpacks a .zip or .tar.gz, no member of which is let
out of the folder. An address without a known checksum needs ``--md5``, ``--sha256`` or ``--unchecked``.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

# Addresses and MD5 as MedMNIST 2.1 states them in medmnist/info.py.
KNOWN = {
    "pneumoniamnist": (
        "https://zenodo.org/record/6496656/files/pneumoniamnist.npz?download=1",
        "md5", "28209eda62fecd6e6a2d98b1501bb15f",
    ),
    "nodulemnist3d": (
        "https://zenodo.org/record/6496656/files/nodulemnist3d.npz?download=1",
        "md5", "8755a7e9e05a4d9ce80a24c3e7a256f3",
    ),
}  # fmt: skip
CHUNK = 1 << 20
MOST_RATIO = 200  # of what an archive unpacks to, to its own size
TIMEOUT = 60


class FetchError(Exception):
    """What went wrong, and what to do."""


def fetch(url: str, folder: Path, kind: str | None, digest: str | None) -> Path:
    """Fetch ``url`` into ``folder``.

    Args:
        url: http or https.
        folder: made where it is not there.
        kind: ``md5`` or ``sha256``; None for no check.
        digest: in hexadecimal.

    Returns:
        The file; one that is there already, and right, is not fetched again.

    Raises:
        FetchError: it cannot be fetched, or is not what it should be.
    """
    parts = urllib.parse.urlsplit(url)
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not name or "\\" in name or name in (".", ".."):
        raise FetchError(f"{url} is no http address of a file")
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / name, folder / f"{name}.partial"
    if target.exists():
        if kind and digest_of(target, kind) != digest:
            raise FetchError(f"{target} is there, but is not what it should be: remove it, and fetch again")
        return target
    _download(url, partial)
    if kind and (found := digest_of(partial, kind)) != digest:
        partial.unlink()
        raise FetchError(f"{name}: its {kind.upper()} is {found}, not {digest}; what came was removed: try again")
    partial.replace(target)
    return target


def _download(url: str, partial: Path) -> None:
    """Into ``partial``, after what it holds, where the server can go on from there."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            length = answer.headers.get("Content-Length")
            with partial.open("ab" if goes_on else "wb") as file:
                before = file.tell()
                shutil.copyfileobj(answer, file, CHUNK)
                came = file.tell() - before
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to come
            return
        raise FetchError(f"the server answers {error.code} ({error.reason})") from error
    except OSError as error:
        raise FetchError(f"the connection broke ({error}); call again to go on") from error
    if length is not None and came != int(length):
        raise FetchError(f"the connection ended after {came} of {length} bytes; call again to go on")


def digest_of(path: Path, kind: str) -> str:
    found = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a .zip or a tar into a new folder beside it, whole or not at all.

    Raises:
        FetchError: a member would leave the folder, is a link, or all unpack to far more than the archive's size.
    """
    name = archive.name.partition(".")[0]
    target, partial = folder / name, folder / f"{name}.partial"
    if target.exists():
        raise FetchError(f"{target} is there already")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, partial)
        elif tarfile.is_tarfile(archive):
            _untar(archive, partial)
        else:
            raise FetchError(f"{archive.name} is neither a zip nor a tar file")
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _bounded(sum(member.file_size for member in members), archive)
        for member in members:
            _stays_inside(member.filename, folder)
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise FetchError(f"{archive.name} holds a link, {member.filename!r}")
        file.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        _bounded(sum(member.size for member in members), archive)
        for member in members:
            _stays_inside(member.name, folder)
            if not (member.isfile() or member.isdir()):
                raise FetchError(f"{archive.name} holds something else than files and folders, {member.name!r}")
        file.extractall(folder, members)


def _bounded(size: int, archive: Path) -> None:
    if size > MOST_RATIO * archive.stat().st_size:
        raise FetchError(f"{archive.name} would unpack to {size >> 20} MiB, far more than an archive of images does")


def _stays_inside(name: str, folder: Path) -> None:
    path = name.replace("\\", "/")
    inside = (folder / path).resolve().is_relative_to(folder.resolve())
    if path.startswith("/") or ":" in path.partition("/")[0] or not inside:
        raise FetchError(f"a member of the archive would leave the folder: {name!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="list, the name of a set, or an address")
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("--md5")
    parser.add_argument("--sha256")
    parser.add_argument("--unchecked", action="store_true", help="the publisher gives no checksum")
    parser.add_argument("--unpack", action="store_true")
    asked = parser.parse_args()
    if asked.what == "list":
        for name, (url, _, _) in KNOWN.items():
            print(f"{name}: {url}")
        return
    url, kind, digest = KNOWN.get(asked.what, (asked.what, None, None))
    if asked.md5 or asked.sha256:
        kind, digest = ("sha256", asked.sha256) if asked.sha256 else ("md5", asked.md5)
    if kind is None and not asked.unchecked:
        parser.error("give --md5 or --sha256 as the publisher's page states it, or --unchecked")
    try:
        found = fetch(url, asked.output, kind, digest.lower() if digest else None)
        print(found)
        if asked.unpack:
            print(unpack(found, asked.output))
    except FetchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
