"""The cache of prepared images: used again, and not when the scan or its preparation has changed."""

import numpy as np
import pytest
import torch

from medlora.training.cases import Where
from medlora.training.prepared import ImageCache, prepare


class Preset:
    """Prepares a scan to a tensor of its own number, counting how often it is asked."""

    channels, size, flat = 1, 4, True

    def __init__(self, gain=1.0):
        self.gain, self.asked = gain, []

    def to_dict(self):
        return {"preset": "made", "gain": self.gain, "augment": 1.0, "mean": [0.5], "std": [0.5]}

    def preparation(self):
        def prepare(scan, centre=None):
            self.asked.append(scan.scan_id)
            return torch.full((1, 4, 4), self.gain * int(scan.scan_id))

        return prepare


class Scan:
    def __init__(self, scan_id):
        self.scan_id = scan_id


CASES = [Where(str(number)) for number in range(5)]


def images(tmp_path, preset, stamps):
    cache = ImageCache(tmp_path / "cache", preset, stamps.__getitem__)
    made = prepare(tmp_path / "run.f32", CASES, Scan, preset, np.arange(5), "preparing", cache)
    return [float(made[index][0].mean()) for index in range(5)]


def test_second_run_prepares_nothing_a_changed_scan_is_prepared_anew(tmp_path):
    stamps = {case.scan_id: [1, 2] for case in CASES}
    preset = Preset()
    assert images(tmp_path, preset, stamps) == [0, 1, 2, 3, 4]
    assert sorted(preset.asked) == ["0", "1", "2", "3", "4"]  # in threads
    again = Preset()
    assert images(tmp_path, again, stamps) == [0, 1, 2, 3, 4]
    assert again.asked == []
    stamps["3"] = [1, 3]
    assert images(tmp_path, again, stamps) == [0, 1, 2, 3, 4]
    assert again.asked == ["3"]
    other = Preset(gain=2.0)
    assert images(tmp_path, other, stamps) == [0, 2, 4, 6, 8]


def test_a_damaged_file_is_prepared_anew(tmp_path):
    stamps = {case.scan_id: [] for case in CASES}
    images(tmp_path, Preset(), stamps)
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 5
    kept[0].write_bytes(kept[0].read_bytes()[:-8])
    kept[1].write_bytes(b"")
    preset = Preset()
    assert images(tmp_path, preset, stamps) == [0, 1, 2, 3, 4]
    assert len(preset.asked) == 2
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0 or pytest.skip("no such modes here")
