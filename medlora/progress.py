"""What long work says while it runs: a bar on a terminal, plain lines elsewhere, always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

T = TypeVar("T")

_quiet = False
_logs: list[TextIO] = []


def quiet(on: bool = True) -> None:
    """Switch all messages of this module off (``--quiet``, tests) or on again."""
    global _quiet  # noqa: PLW0603 - one switch for the process, set once by the command line
    _quiet = on


def say(message: str) -> None:
    """Print one line for the person who waits, on standard error, and into the log of the run if there is one."""
    for log in _logs:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
        log.flush()
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Keep what is said while the block runs in the file ``path``, with the time of day."""
    with path.open("a", encoding="utf-8", newline="\n") as log:
        _logs.append(log)
        try:
            yield
        finally:
            _logs.remove(log)


def track(items: Iterable[T], what: str, total: int | None = None, every: float = 10.0) -> Iterator[T]:
    """Yield ``items``, showing how many are done.

    Args:
        items: anything iterable.
        what: the work, as a present participle ("reading headers").
        total: how many there are, where ``items`` has no length.
        every: seconds between plain lines when standard error is no terminal.
    """
    if total is None:
        total = len(items) if isinstance(items, Sized) else None
    if _quiet:
        yield from items
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, what, total=total, console=Console(stderr=True), transient=True)
    else:
        last = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() - last >= every:
                last = time.monotonic()
                say(f"{what}: {done}{f' of {total}' if total else ''}")
