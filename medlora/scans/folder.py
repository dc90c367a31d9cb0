"""The files below a folder: never out of it, never round in circles, and what could not be looked at is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

from medlora.scans.codes import Code
from medlora.scans.scan import Excluded

_name = attrgetter("name")
_JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "dicomdir", "ehthumbs.db"}
_JUNK_STARTS = frozenset("".join(name[0] + name[0].upper() for name in _JUNK_NAMES))


def is_junk(name: str) -> bool:
    """Whether a file of this name is left by an operating system, or is the index of a DICOM medium (PS3.10 8)."""
    return name.lower() in _JUNK_NAMES or name.startswith("._")


def list_files(folder: str | os.PathLike[str], excluded: list[Excluded] | None = None) -> Iterator[Path]:
    """The candidate files below ``folder``, in a stable order, junk left out silently.

    Links are followed where they stay within the folder and a file or folder is not met twice by them.

    Args:
        folder: a folder, or a single file, which is then the only one.
        excluded: receives what cannot be opened and links that lead out.

    Yields:
        paths below ``folder`` as given (not resolved).
    """
    if not Path(folder).is_dir():
        yield Path(folder)
        return
    for entry in entries(folder, [] if excluded is None else excluded):
        yield Path(entry.path)


def entries(folder: str | os.PathLike[str], excluded: list[Excluded]) -> Iterator[os.DirEntry[str]]:
    """As `list_files`, of a folder, as the system's entries: to make paths of them takes longer than to find them."""
    root = Path(folder).resolve()
    seen = {_identity(root)}
    waiting = [os.fspath(folder)]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as found:
                listed = sorted(found, key=_name)
        except OSError as error:
            excluded.append(Excluded((Path(here),), Code.CannotOpen, error.strerror or type(error).__name__))
            continue
        folders = []
        for entry in listed:
            try:
                if not entry.is_file(follow_symlinks=False):
                    if entry.is_symlink():
                        target = Path(entry.path).resolve(strict=True)
                        if not target.is_relative_to(root):
                            excluded.append(Excluded((Path(entry.path),), Code.LinkLeavesFolder, ""))
                            continue
                        if target.is_file():  # the file itself is met on its own
                            continue
                    if entry.is_dir():
                        identity = _identity(Path(entry.path))
                        if identity not in seen:
                            seen.add(identity)
                            folders.append(entry.path)
                    else:
                        reason = "neither a file nor a folder"
                        excluded.append(Excluded((Path(entry.path),), Code.NotAnImage, reason))
                elif entry.name[0] not in _JUNK_STARTS or not is_junk(entry.name):
                    yield entry
            except (OSError, RuntimeError) as error:  # a dangling link, a loop of links, a file that vanished
                reason = getattr(error, "strerror", None) or "link in a circle"
                excluded.append(Excluded((Path(entry.path),), Code.CannotOpen, reason))
        waiting.extend(reversed(folders))


def _identity(path: Path) -> tuple[int, int] | str:
    """What two paths to the same folder share."""
    status = path.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(path.resolve())
