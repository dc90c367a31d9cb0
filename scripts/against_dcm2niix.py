"""Volumes of an archive as `medlora.scans` reads them, against those that dcm2niix makes of the same files.

    python scripts/against_dcm2niix.py FOLDER [FOLDER …]

For each folder: how many volumes each makes, and which of one's have no equal among the other's. Two are equal where,
turned to the nearest axes of RAS+, all voxels agree (1e-5 of their value) and all figures of the affine (1e-3). Tilted
CT remains, whose affine dcm2niix writes without the tilt, and the copies that it makes of it.

Tried on the public dcm_qa, dcm_qa_asl, _canon, _canon_61, _cs_dl, _ct, _decubitus, _deident, _enh, _fmap, _ge, _me,
_mosaic, _nih, _pdt2, _philips, _philips_asl, _philips_dwi, _philips_enh, _polar, _sag, _stc, _toshiba, _trt, _ts, _uih,
_xa30, _xa30i and _xa60 (neurolabusc on GitHub), unpacked where gzipped. Two sagittal series of _xa30i
remain, too: dcm2niix takes the step from the first two positions, as they were rounded, and is off at the far end.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import nibabel
import numpy as np

from medlora import scans

Volume = tuple[np.ndarray, np.ndarray]


def canonical(array: np.ndarray, affine: np.ndarray) -> Volume:
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asarray(array, np.float32), affine))
    return np.asarray(image.dataobj), image.affine


def theirs(folder: Path, out: Path) -> list[tuple[str, Volume]]:
    # -p n: by the standard's rescale, not Philips' private one
    command = ["dcm2niix", "-p", "n", "-z", "n", "-b", "n", "-f", "%s_%p_%t", "-o", str(out), str(folder)]
    subprocess.run(command, capture_output=True, check=False)
    found = []
    for path in sorted(out.glob("*.nii")):
        image = nibabel.load(path)
        if image.get_data_dtype().names:
            continue
        data = image.get_fdata(dtype=np.float32)
        data = data.reshape(*data.shape[:3], -1, order="F") if data.ndim > 2 else data[..., None, None]
        found += [(f"{path.name} {k}", canonical(data[..., k], image.affine)) for k in range(data.shape[3])]
    return found


def ours(folder: Path) -> tuple[list[tuple[str, Volume]], Counter[str]]:
    found, issues = [], Counter()
    survey = scans.survey(folder)
    issues.update(f"excluded: {left.code.name}" for left in survey.excluded)
    for files in survey.scans:
        scan = files.load()
        issues.update(issue.code.name for issue in scan.issues)
        if scan.array.ndim == 3:
            found.append((repr(scan), canonical(scan.array, scan.affine)))
    return found, issues


def without_equal(one: list[tuple[str, Volume]], other: list[tuple[str, Volume]]) -> list[str]:
    by_shape: dict[tuple[int, ...], list[Volume]] = defaultdict(list)
    for _, volume in other:
        by_shape[volume[0].shape].append(volume)

    def are_equal(a: Volume, b: Volume) -> bool:
        return np.allclose(a[1], b[1], atol=1e-3) and np.allclose(a[0], b[0], rtol=1e-5, atol=1e-3)

    return [name for name, volume in one if not any(are_equal(volume, b) for b in by_shape[volume[0].shape])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        with tempfile.TemporaryDirectory() as out:
            reference = theirs(folder, Path(out))
        found, issues = ours(folder)
        lacking, extra = without_equal(reference, found), without_equal(found, reference)
        print(f"{folder}: dcm2niix {len(reference)} volumes, medlora {len(found)}")
        for title, names in (("of dcm2niix without an equal", lacking), ("of medlora without an equal", extra)):
            print(f"  {len(names)} {title}" + "".join(f"\n    {name}" for name in names[:10]))
        print(f"  {dict(issues)}")


if __name__ == "__main__":
    main()
