"""The files below a folder: never out of it, never round in circles, and what could not be looked at is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

from medlora.scans.codes import Code
from medlora.scans.scan import Excluded

_name = attrgetter("name")
_JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "dicomdir", "ehthumbs.db"}
_JUNK_STARTS = frozenset("".join(name[0] + name[0].upper() for name in _JUNK_NAMES))

_GIT = ".git"


def is_junk(name: str) -> bool:
    """Whether a file of this name is left by an operating system, or is the index of a DICOM medium (PS3.10 8)."""
    return name.lower() in _JUNK_NAMES or name.startswith("._")


def list_files(folder: str | os.PathLike[str], excluded: list[Excluded] | None = None) -> Iterator[Path]:
    """The candidate files below ``folder``, in a stable order, junk left out silently.

    Links are followed where they stay within the folder and a file or folder is not met twice by them. What git keeps
    in ``.git`` is met by the links to it, as of git-annex and DataLad, and else not at all.

    Args:
        folder: a folder, or a single file, which is then the only one.
        excluded: receives what cannot be opened and links that lead out.

    Yields:
        paths below ``folder`` as given (not resolved).
    """
    if not Path(folder).is_dir():
        yield Path(folder)
        return
    for path, _ in entries(folder, [] if excluded is None else excluded):
        yield Path(folder, path)


def entries(folder: str | os.PathLike[str], excluded: list[Excluded]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """As `list_files`, of a folder: paths relative to it, and the system's entries, which have only a name.

    What an entry is asked for (``stat``) it must be asked before the next one is taken: its folder is open until then,
    so that the system need not look up the whole path for each file.
    """
    root = Path(folder).resolve()
    seen = {_identity(root)}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        folders = []
        try:
            with _opened(os.path.join(folder, below)) as here, os.scandir(here) as found:  # noqa: PTH118
                for entry in sorted(found, key=_name):
                    try:
                        is_file = entry.is_file(follow_symlinks=False) or _is_kept_by_git(
                            Path(folder, below, entry.name), entry, root
                        )
                        if not is_file and _to_enter(Path(folder, below, entry.name), entry, root, seen, excluded):
                            folders.append(os.path.join(below, entry.name, ""))  # noqa: PTH118
                    except (OSError, RuntimeError) as error:  # a dangling link, a loop of links, a file that vanished
                        reason = getattr(error, "strerror", None) or "link in a circle"
                        excluded.append(Excluded((Path(folder, below, entry.name),), Code.CannotOpen, reason))
                        continue
                    if is_file and (entry.name[0] not in _JUNK_STARTS or not is_junk(entry.name)):
                        yield below + entry.name, entry
        except OSError as error:
            reason = error.strerror or type(error).__name__
            excluded.append(Excluded((Path(folder, below),), Code.CannotOpen, reason))
        waiting.extend(reversed(folders))


@contextmanager
def _opened(folder: str) -> Iterator[int | str]:
    """A folder's descriptor, or its path where the system lists folders by nothing else (Windows)."""
    if os.scandir not in os.supports_fd:
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_kept_by_git(path: Path, entry: os.DirEntry[str], root: Path) -> bool:
    """Whether the entry is a link to a file in the folder ``.git`` below ``root``."""
    if not entry.is_symlink():
        return False
    target = path.resolve(strict=True)
    return target.is_file() and target.is_relative_to(root) and _GIT in target.relative_to(root).parts


def _to_enter(
    path: Path, entry: os.DirEntry[str], root: Path, seen: set[tuple[int, int] | str], excluded: list[Excluded]
) -> bool:
    """Whether what is no plain file is a folder below ``root`` that has not been met yet."""
    if entry.name == _GIT:
        return False
    if entry.is_symlink():
        target = path.resolve(strict=True)
        if not target.is_relative_to(root):
            excluded.append(Excluded((path,), Code.LinkLeavesFolder, ""))
            return False
        if target.is_file():  # the file itself is met on its own
            return False
    if not entry.is_dir():
        excluded.append(Excluded((path,), Code.NotAnImage, "neither a file nor a folder"))
        return False
    identity = _identity(path)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _identity(path: Path) -> tuple[int, int] | str:
    """What two paths to the same folder share."""
    status = path.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(path.resolve())
