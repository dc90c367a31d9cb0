"""Writing that leaves a whole file or folder, or none: to a temporary name beside it, then renamed."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medlora.errors import MedloraError

_CAUSES = {
    errno.EACCES: ("no permission to write there", "choose another output folder, or change its permissions"),
    errno.EPERM: ("no permission to write there", "choose another output folder, or change its permissions"),
    errno.EROFS: ("the file system is read-only", "choose an output folder on another disk"),
    errno.ENOSPC: ("the disk is full", "free some space, or choose an output folder on another disk"),
    errno.EDQUOT: (
        "the disk quota is used up",
        "free some space, or choose an output folder on another disk",
    ),
    errno.EFBIG: ("the file system allows no file of that size", "choose an output folder on another disk"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another output folder"),
}


def cannot_write(path: str | os.PathLike[str], error: OSError) -> MedloraError:
    """The one message for a path that cannot be written."""
    cause, fix = _CAUSES.get(error.errno or 0, (error.strerror or str(error), "choose another output folder"))
    return MedloraError(f"cannot write {os.fspath(path)}: {cause}", fix)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well, else remove it.

    Raises:
        MedloraError: the file cannot be written (permission, full disk).
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise (cannot_write(path, error) if is_about(error, partial.parent) else error) from error
    finally:
        partial.unlink(missing_ok=True)


def is_about(error: OSError, folder: Path) -> bool:
    """Whether ``error`` is of writing below ``folder`` (a full disk often names no file), not of reading elsewhere."""
    if not isinstance(error.filename, (str, os.PathLike)):
        return error.errno in _CAUSES
    return Path(error.filename).is_relative_to(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 ``text`` to ``path``, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all; NaN is written as null, since JSON has none."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (not math.isfinite(value)):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def holds_something(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` exists and is anything but an empty folder."""
    path = Path(path)
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() or path.is_symlink()


def refuse_existing(path: str | os.PathLike[str], what: str) -> None:
    """Raise where ``path`` already holds something, so that no result is overwritten unasked.

    Raises:
        MedloraError: ``path`` is a file or a folder with content; ``what`` names the verb's result.
    """
    if holds_something(path):
        raise MedloraError(
            f"{os.fspath(path)} already exists, and {what} would be written there",
            "choose another -o/--output, or add --overwrite",
        )


@contextmanager
def new_folder(path: str | os.PathLike[str], what: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` when the block ends well, else remove it.

    Args:
        path: where the folder will be; it may exist when empty, or when ``overwrite`` is given.
        what: what is written, for the message ("the cohort", "the evaluation").
        overwrite: replace what is there, after the new folder is whole.

    Raises:
        MedloraError: ``path`` holds something already, or cannot be written.
    """
    path = Path(path)
    if not overwrite:
        refuse_existing(path, what)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        partial.chmod(0o755)  # as a plain mkdir would; private/ narrows its own
        yield partial
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent)) / path.name
            path.replace(old)
            shutil.rmtree(old.parent)
        partial.replace(path)
    except OSError as error:
        raise (cannot_write(path, error) if is_about(error, partial.parent) else error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
