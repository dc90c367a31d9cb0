"""The images that a network reads, made from the scans of cases; several single images at a time."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch

    from medlora.scans import Scan
    from medlora.training.cases import Where
    from medlora.transforms import Centre, Preset

THREADS = 8


def prepared(cases: Iterable[Where], read: Callable[[str], Scan], preset: Preset) -> Iterator[torch.Tensor]:
    """The prepared image of each case; a scan is read once for cases that follow each other, as those of a cohort do.

    Decoding and resampling leave Python's lock, so threads do several at a time of the scans that are single images;
    of volumes two are never in memory.

    Args:
        cases: in the order of the answer.
        read: scan_id → Scan.
        preset: gives the deterministic preparation.

    Raises:
        MedloraError: a scan cannot be read or prepared; it is named.
    """
    prepare = preset.preparation()

    def images_of(group: tuple[str, list[Centre | None]]) -> list[torch.Tensor]:
        scan = read(group[0])
        return [prepare(scan, centre) for centre in group[1]]

    groups = ((scan_id, [case.centre for case in group]) for scan_id, group in groupby(cases, lambda c: c.scan_id))
    if not preset.flat:
        for group in groups:
            yield from images_of(group)
        return
    for group in islice(groups, 1):  # in this thread, so that one alone imports what is imported late
        yield from images_of(group)
    threads = min(os.cpu_count() or 1, THREADS)
    waiting: deque[Future[list[torch.Tensor]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reading")
    try:
        for group in groups:
            if len(waiting) > threads:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(images_of, group))
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
