"""The files below a folder: never out of it, never round in circles, and what could not be looked at is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from medlora.scans.codes import Code
from medlora.scans.scan import Excluded

_JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "dicomdir", "ehthumbs.db"}


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
    top = Path(folder)
    excluded = excluded if excluded is not None else []
    if not top.is_dir():
        yield top
        return
    root = top.resolve()
    seen = {_identity(root)}
    waiting = [top]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            excluded.append(Excluded((here,), Code.CannotOpen, error.strerror or type(error).__name__))
            continue
        folders = []
        for entry in entries:
            path = Path(entry.path)
            try:
                if entry.is_symlink():
                    target = path.resolve(strict=True)
                    if not target.is_relative_to(root):
                        excluded.append(Excluded((path,), Code.LinkLeavesFolder, ""))
                        continue
                    if target.is_file():  # the file itself is met on its own
                        continue
                if entry.is_dir():
                    identity = _identity(path)
                    if identity not in seen:
                        seen.add(identity)
                        folders.append(path)
                elif entry.is_file():
                    if not is_junk(entry.name):
                        yield path
                else:
                    excluded.append(Excluded((path,), Code.NotAnImage, "neither a file nor a folder"))
            except (OSError, RuntimeError) as error:  # a dangling link, a loop of links, a file that vanished
                excluded.append(
                    Excluded((path,), Code.CannotOpen, getattr(error, "strerror", None) or "link in a circle")
                )
        waiting.extend(reversed(folders))


def _identity(path: Path) -> tuple[int, int] | str:
    """What two paths to the same folder share."""
    status = path.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(path.resolve())
