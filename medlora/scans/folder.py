"""The files below a folder: never out of it, never round in circles, and what could not be looked at is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from stat import S_ISLNK, S_ISREG, ST_MODE

from medlora.scans.codes import Code
from medlora.scans.scan import Excluded

_JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "dicomdir", "ehthumbs.db"}
_JUNK_STARTS = frozenset("".join(name[0] + name[0].upper() for name in _JUNK_NAMES))

_GIT = ".git"
_AT_ONCE = 1000  # statuses are large: those of a folder of a million files would take a gigabyte


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
    for paths, _ in listing(folder, [] if excluded is None else excluded):
        for path in paths:
            yield Path(folder, path)


def listing(
    folder: str | os.PathLike[str], excluded: list[Excluded]
) -> Iterator[tuple[list[str], list[os.stat_result]]]:
    """As `list_files`, of a folder: some paths at a time, relative to it, and the status of each file."""
    tree = _Tree(Path(folder), excluded)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        folders: list[str] = []
        try:
            with _opened(os.path.join(folder, below, "")) as (descriptor, within):  # noqa: PTH118
                found = sorted(os.listdir(within if descriptor is None else descriptor))  # noqa: PTH208
                for start in range(0, len(found), _AT_ONCE):
                    names = found[start : start + _AT_ONCE]
                    try:
                        statuses = [os.lstat(within + name, dir_fd=descriptor) for name in names]
                    except OSError:  # one of them vanished, say
                        statuses = []
                    if not _all_plain(names, statuses):
                        names, statuses = tree.files_among(names, below, folders)
                    yield [below + name for name in names], statuses
        except OSError as error:
            reason = error.strerror or type(error).__name__
            excluded.append(Excluded((Path(folder, below),), Code.CannotOpen, reason))
        waiting.extend(reversed(folders))


def _all_plain(names: list[str], statuses: list[os.stat_result]) -> bool:
    """Whether there is a status of each name, all are plain files, and none is junk. Called for every file: the
    loops are those of the interpreter."""
    return (
        len(statuses) == len(names)
        and all(map(S_ISREG, set(map(itemgetter(ST_MODE), statuses))))
        and (_JUNK_STARTS.isdisjoint(map(itemgetter(0), names)) or not any(map(is_junk, names)))
    )


class _Tree:
    """What lies below a folder, met one by one.

    Args:
        folder: the folder, as given.
        excluded: receives what cannot be opened and links that lead out.
    """

    def __init__(self, folder: Path, excluded: list[Excluded]) -> None:
        self.folder = folder
        self.excluded = excluded
        self.root = folder.resolve()
        self.met = {_identity(self.root)}

    def files_among(self, names: list[str], below: str, folders: list[str]) -> tuple[list[str], list[os.stat_result]]:
        """Those of the names in ``below`` that are files, and their statuses; ``folders`` receives those to enter."""
        files = []
        for name in names:
            path = Path(self.folder, below, name)
            try:
                status = path.lstat()
                if self._is_kept_by_git(path, status):
                    status = path.stat()
                elif not S_ISREG(status.st_mode):
                    if self._to_enter(path, status):
                        folders.append(os.path.join(below, name, ""))  # noqa: PTH118
                    continue
            except (OSError, RuntimeError) as error:  # a dangling link, a loop of links, a file that vanished
                reason = getattr(error, "strerror", None) or "link in a circle"
                self.excluded.append(Excluded((path,), Code.CannotOpen, reason))
                continue
            if not is_junk(name):
                files.append((name, status))
        return [name for name, _ in files], [status for _, status in files]

    def _is_kept_by_git(self, path: Path, status: os.stat_result) -> bool:
        """Whether ``path`` is a link to a file in the folder ``.git`` below the root."""
        if not S_ISLNK(status.st_mode):
            return False
        target = path.resolve(strict=True)
        return target.is_file() and target.is_relative_to(self.root) and _GIT in target.relative_to(self.root).parts

    def _to_enter(self, path: Path, status: os.stat_result) -> bool:
        """Whether what is no plain file is a folder below the root that has not been met yet."""
        if path.name == _GIT:
            return False
        if S_ISLNK(status.st_mode):
            target = path.resolve(strict=True)
            if not target.is_relative_to(self.root):
                self.excluded.append(Excluded((path,), Code.LinkLeavesFolder, ""))
                return False
            if target.is_file():  # the file itself is met on its own
                return False
        if not path.is_dir():
            self.excluded.append(Excluded((path,), Code.NotAnImage, "neither a file nor a folder"))
            return False
        identity = _identity(path)
        if identity in self.met:
            return False
        self.met.add(identity)
        return True


@contextmanager
def _opened(folder: str) -> Iterator[tuple[int | None, str]]:
    """What to look into a folder by: its descriptor, so that the system need not look up the whole path for each file,
    and what comes before a name; on Windows, which knows no such descriptors, there is only the latter."""
    if os.stat not in os.supports_dir_fd or os.listdir not in os.supports_fd:
        yield None, folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor, ""
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | str:
    """What two paths to the same folder share."""
    status = path.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else str(path.resolve())
