"""Damage real files at random, and see that `medlora.scans` reads them, or says why not.

For each damaged file: no crash, no hang, no error without a name, no more memory than the file can justify; and where
the fast walk reads the header, it finds the values that pydicom finds.

    python scripts/fuzz_scans.py --count 10000 --seed 0
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import nibabel
import pydicom

from medlora import scans
from medlora.errors import MedloraError
from medlora.scans.dicom import by_pydicom
from medlora.scans.walk import Unusual, walk

MOST_SECONDS = 10.0


def sources() -> list[bytes]:
    """The real files that pydicom and nibabel carry in their wheels."""
    packaged = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [path.read_bytes() for path in sorted(packaged.glob("*.dcm"))]
    data = Path(nibabel.__file__).parent
    for path in sorted((data / "nicom" / "tests" / "data").glob("*.dcm*")):
        whole = path.read_bytes()
        files.append(gzip.decompress(whole) if path.suffix == ".gz" else whole)
    files += [
        (data / "tests" / "data" / name).read_bytes()
        for name in ("example4d.nii.gz", "anatomical.nii", "standard.nii.gz")
    ]
    return [whole for whole in files if len(whole) < 2_000_000 and _is_image(whole)]


def _is_image(whole: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(whole)
        return bool(scans.survey(path).scans)


def damaged(whole: bytes, random_: random.Random) -> bytes:
    """One to four injuries: flipped bits, changed bytes, lengths, cuts, insertions, removals, repetitions."""
    data = bytearray(whole)
    for _ in range(random_.randint(1, 4)):
        if len(data) < 8:
            break
        reach = len(data) if random_.random() < 0.3 else min(len(data), 3000)  # most harm is done in headers
        at = random_.randrange(reach)
        kind = random_.randrange(8)
        if kind == 0:
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            data[at] = random_.randrange(256)
        elif kind == 2:
            data[at : at + 4] = random_.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x01\0\0\0"])
        elif kind == 3:
            data[at : at + 2] = random_.choice([b"SQ", b"UN", b"OB", b"DS", b"US", b"ZZ", b"\0\0"])
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at:at] = random_.randbytes(random_.randint(1, 16))
        elif kind == 6:
            del data[at : at + random_.randint(1, 64)]
        else:
            start = random_.randrange(reach)
            data[at:at] = data[start : start + random_.randint(8, 200)]
    return bytes(data)


def check(path: Path, whole: bytes) -> str:
    """What became of one file, in a word; raises AssertionError where it is what must not be."""
    path.write_bytes(whole)
    start = time.monotonic()
    if whole[128:132] == b"DICM":
        _check_walk(path, whole)
    try:
        found = scans.read(path)
        outcome = "flagged" if any(scan.issues for scan in found) else "read"
        assert all(scan.array.size < 1 << 28 for scan in found)
        assert all(isinstance(excluded.code, scans.Code) for excluded in found.excluded)
    except MedloraError as error:
        assert ": " in str(error)
        outcome = "refused"
    seconds = time.monotonic() - start
    assert seconds < MOST_SECONDS, f"took {seconds:.0f} s"
    return outcome


def _check_walk(path: Path, whole: bytes) -> None:
    """The walk and pydicom agree wherever the walk dares."""
    try:
        walked = walk(path, len(whole), whole[: 16 * 1024])
    except Unusual:
        return
    try:
        slow = by_pydicom(path)
    except Exception:
        return  # what pydicom cannot read, it cannot judge
    assert walked == slow, _difference(walked, slow)


def _difference(walked, slow) -> str:
    keys = [k for k in {**walked[0], **slow[0]} if walked[0].get(k) != slow[0].get(k)]
    return f"{[(k, walked[0].get(k), slow[0].get(k)) for k in keys]} pixels {walked[1]} {slow[1]}"


def run(count: int, seed: int, keep: Path | None = None) -> tuple[Counter, list[str]]:
    """Outcomes of ``count`` damaged files, and what went wrong with which of them."""
    files = sources()
    outcomes: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "damaged"
        for number in range(count):
            random_ = random.Random(f"{seed} {number}")
            whole = damaged(random_.choice(files), random_)
            try:
                outcomes[check(path, whole)] += 1
            except Exception as error:
                failures.append(f"{number}: {type(error).__name__}: {error}")
                if keep:
                    (keep / f"{seed}-{number}").write_bytes(whole)
    return outcomes, failures


def main() -> int:
    import resource  # not on Windows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that went wrong")
    parser.add_argument("--memory", type=float, default=4.0, help="GB of address space that may be taken")
    arguments = parser.parse_args()
    limit = int(arguments.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = time.monotonic()
    outcomes, failures = run(arguments.count, arguments.seed, arguments.keep)
    for failure in failures[:50]:
        print(failure)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.count} files in {time.monotonic() - start:.0f} s, peak {peak:.0f} MiB: {dict(outcomes)}")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
