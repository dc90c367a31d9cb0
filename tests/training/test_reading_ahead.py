"""Scans are read ahead in threads: the order stays, the failing scan is the one named, and volumes stay alone."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from medlora.training.cases import Where
from medlora.training.reading import prepared


class Preset:
    """Prepares a scan's number and a place as they are."""

    def __init__(self, flat: bool) -> None:
        self.flat = flat

    def preparation(self) -> Any:
        return lambda scan, centre: (scan.scan_id, centre)


class Archive:
    """Scans that take a few milliseconds to read, and how many of them were read at once."""

    def __init__(self) -> None:
        self.lock, self.reading, self.most, self.read = threading.Lock(), 0, 0, []

    def scan(self, scan_id: str) -> Any:
        with self.lock:
            self.reading += 1
            self.read.append(scan_id)
            self.most = max(self.most, self.reading)
        time.sleep(0.02 if scan_id.endswith("0") else 0.002)
        with self.lock:
            self.reading -= 1
        if scan_id == "broken":
            raise ValueError("scan broken")
        return SimpleNamespace(scan_id=scan_id)


CASES = [Where(f"scan{n}", (float(place), 0.0, 0.0)) for n in range(30) for place in range(2)]


@pytest.mark.parametrize("flat", [True, False])
def test_images_come_in_the_order_of_the_cases_and_each_scan_is_read_once(flat: bool) -> None:
    archive = Archive()
    assert list(prepared(CASES, archive.scan, Preset(flat))) == [(case.scan_id, case.centre) for case in CASES]
    assert sorted(archive.read) == sorted({case.scan_id for case in CASES})
    assert archive.most > 1 or os.cpu_count() == 1 if flat else archive.most == 1


def test_a_scan_that_cannot_be_read_ends_the_work_after_the_images_before_it() -> None:
    archive = Archive()
    images = prepared([*CASES[:20], Where("broken"), *CASES[20:]], archive.scan, Preset(True))
    assert [next(images)[0] for _ in range(20)] == [case.scan_id for case in CASES[:20]]
    with pytest.raises(ValueError, match="broken"):
        next(images)
    assert len(archive.read) < 30
