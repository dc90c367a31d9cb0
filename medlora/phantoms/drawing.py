"""Many patients at a time, each with the bytes that it has alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from medlora import progress as messages

Rows = list[dict[str, Any]]


def draw_all(
    draw: Callable[[int], Rows], patients: int, *, processes: bool, workers: int | None = None, progress: bool = True
) -> Rows:
    """Draw all patients, and return the rows of the labels CSV in their order.

    Args:
        draw: writes the patient of a number and returns its rows; it is sent to other processes.
        patients: how many.
        processes: whether to draw in processes, which take seconds to start, or in threads, which wait for each other.
        workers: how many of them; as many as there are processors where None.
        progress: say how far it is.
    """
    from joblib import Parallel, delayed, parallel_config
    from threadpoolctl import threadpool_limits

    backend = {"backend": "loky", "inner_max_num_threads": 1} if processes else {"backend": "threading"}
    # With another number of threads BLAS adds up in another order, and a pixel may round to another grey level.
    with threadpool_limits(1, "blas"), parallel_config(**backend):
        done: Iterator[Rows] = Parallel(n_jobs=workers or os.cpu_count() or 1, return_as="generator")(
            delayed(draw)(number) for number in range(patients)
        )
        if progress:
            done = messages.track(done, "writing phantom patients", patients)
        return [row for of_patient in done for row in of_patient]
