"""Files per second of `medlora.cohorts.index`, against a plain pydicom loop over the same files in the same run.

    python scripts/bench_index.py [--files 8000] [--small 100000]

Three kinds of files, each over and over (as hard links, where the system has them): slices of CT and MR with the real
headers that pydicom is packaged with and their pixels repeated to 512 x 512; the images of 100 KB and more that pydicom
and nibabel are packaged with, most of them with short headers; and Siemens mosaics, whose private header has to be read
to know what they are. Each way is timed five times, in turn, and the best time of each counts. The memory bar is
measured in a process of its own, on as many small files as asked for.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom

from medlora import progress
from medlora.cohorts import index

PASSES = 5


def real_files(mosaics: bool) -> list[Path]:
    # not pydicom's own get_testdata_files, which would fetch those that are not packaged
    folders = (Path(pydicom.__file__).parent / "data" / "test_files", Path(nibabel.__file__).parent / "tests" / "data")
    packaged = [path for folder in folders for path in sorted(folder.rglob("*.dcm"))]
    return [
        path for path in packaged if path.stat().st_size >= 100_000 and kind(path) == ("mosaic" if mosaics else "image")
    ]


def kind(path: Path) -> str:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except Exception:
        return "unreadable"
    if "MOSAIC" in header.get("ImageType", []):
        return "mosaic"
    return "image" if "Rows" in header else "other"


def slices(folder: Path) -> list[Path]:
    """The small CT and MR images of pydicom, with their headers as they are but for rows, columns and pixels."""
    made = []
    for name in ("CT_small.dcm", "MR_small.dcm"):
        ds = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / name)
        times = 512 // ds.Rows
        ds.PixelData = np.tile(ds.pixel_array, (times, times)).tobytes()
        ds.Rows = ds.Columns = 512
        made.append(folder / name)
        ds.save_as(made[-1])
    return made


def copies(root: Path, sources: list[Path], n: int) -> None:
    root.mkdir(parents=True)
    originals = [shutil.copyfile(path, root.parent / f"{root.name} {i}") for i, path in enumerate(sources)]
    for i in range(n):
        folder = root / f"{i // 200:05d}"
        folder.mkdir(exist_ok=True)
        try:
            os.link(originals[i % len(originals)], folder / f"{i:06d}.dcm")
        except OSError:  # no links here, or too many to one file
            shutil.copyfile(originals[i % len(originals)], folder / f"{i:06d}.dcm")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plain(root: Path) -> None:
    for path in sorted(root.rglob("*.dcm")):
        pydicom.dcmread(path, stop_before_pixels=True)


def indexed(root: Path, cache: Path | None) -> None:
    index(root, cache).close()


def peak(root: Path) -> None:
    """Index ``root`` and print how many files it has and the memory that took, in a process of its own."""
    found = index(root, root.parent / "small.sqlite")
    status = Path("/proc/self/status")  # not getrusage(2), which hands down what the parent had taken
    megabytes = int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 if status.is_file() else math.nan
    print(f"{found.files} small files: peak {megabytes:.0f} MB (bar: 1000), beside helpers that hold one batch each")


def compare(place: Path, sources: list[Path], n: int) -> None:
    root, cache = place / "archive", place / "index.sqlite"
    copies(root, sources, n)
    size = sum(path.stat().st_size for path in sources) / len(sources)
    print(f"{n} files, {len(sources)} different ones, {size / 1e3:.0f} KB in the mean")
    indexed(root, None)  # starts the workers and warms the file cache, for all alike
    best = {"pydicom": float("inf"), "first": float("inf"), "second": float("inf")}
    for _ in range(PASSES):
        cache.unlink(missing_ok=True)
        best["pydicom"] = min(best["pydicom"], seconds(lambda: plain(root)))
        best["first"] = min(best["first"], seconds(lambda: indexed(root, cache)))
        best["second"] = min(best["second"], seconds(lambda: indexed(root, cache)))
    for name, least in best.items():
        print(f"  {name:8} {least:7.3f} s  {n / least:9.0f} files/s")
    print(f"  first run / pydicom  {best['pydicom'] / best['first']:.1f} x")
    print(f"  second run / first   {best['first'] / best['second']:.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=8000)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    progress.quiet()
    if options.peak:
        peak(options.peak)
        return
    with tempfile.TemporaryDirectory() as temporary:
        kinds = {
            "CT and MR slices": (slices(Path(temporary)), options.files),
            "packaged images": (real_files(False), options.files),
            "Siemens mosaics": (real_files(True), options.files // 8),
        }
        for name, (sources, n) in kinds.items():
            place = Path(temporary) / name
            place.mkdir()
            print(f"{name} (bars: 8 and 10):")
            compare(place, sources, n)

        root = Path(temporary) / "small"
        copies(root, [Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"], options.small)
        took = seconds(lambda: subprocess.run([sys.executable, __file__, "--peak", str(root)], check=True))
        print(f"in {took:.1f} s")


if __name__ == "__main__":
    main()
