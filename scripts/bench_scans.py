"""How fast headers are walked and a CT series is read, beside other readers, in one run on one machine.

Every figure is the best of several repetitions, with the files in the page cache, so that programs are compared and
not disks.
SimpleITK is not a dependency: it is left out where it is not installed.

    python scripts/bench_scans.py [--headers FOLDER] [--slices 300] [--repeat 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from medlora import scans

CODECS = {
    "uncompressed": "1.2.840.10008.1.2.1",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "RLE": "1.2.840.10008.1.2.5",
}


def write_series(folder: Path, syntax: str, slices: int) -> None:
    """A CT series with the 258 elements of a real header and 512 × 512 pixels that compress as a patient does."""
    import imagecodecs

    folder.mkdir(parents=True)
    data = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    random = np.random.default_rng(0)
    y, x = np.mgrid[:512, :512]
    for k in range(slices):
        body = np.exp(-(((x - 256) / 190) ** 8 + ((y - 256) / (140 + k / 10)) ** 8))
        tissue = 1040 + 60 * np.sin(x / 31 + k / 9) * np.cos(y / 23) + random.normal(0, 12, x.shape)
        pixels = np.clip(body * tissue, 0, 4095).astype("<i2")
        data.Rows, data.Columns = pixels.shape
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.1.{k + 1}"
        data.InstanceNumber, data.ImagePositionPatient = k + 1, [-158.1358, -179.0358, -75.7 + 1.25 * k]
        data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        data.PixelData = pixels.tobytes()
        if syntax == CODECS["RLE"]:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            data.compress(syntax, generate_instance_uid=False)
        elif syntax != CODECS["uncompressed"]:
            encoded = {
                CODECS["JPEG 2000"]: lambda a: imagecodecs.jpeg2k_encode(
                    a, level=0, codecformat="j2k", reversible=True
                ),
                CODECS["JPEG-LS"]: imagecodecs.jpegls_encode,
                CODECS["JPEG lossless"]: lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16),
            }[syntax](pixels.view("<u2"))
            data.PixelData = encapsulate([bytes(encoded)])
            data["PixelData"].VR = "OB"
            data["PixelData"].is_undefined_length = True
        data.save_as(folder / f"{k:04d}.dcm")


def best(what: Callable[[], object], repeat: int) -> float:
    """Seconds of the quickest of ``repeat`` runs."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def by_medlora(folder: Path) -> np.ndarray:
    return scans.read(folder)[0].array


def by_simpleitk(folder: Path) -> np.ndarray:
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


def by_monai(name: str) -> Callable[[Path], np.ndarray]:
    def read(folder: Path) -> np.ndarray:
        import monai.data

        reader = getattr(monai.data, name)()
        return np.asarray(reader.get_data(reader.read(str(folder)))[0])

    return read


def limit(folder: Path) -> np.ndarray:
    """No reader can do less: the bytes of the files, taken for what they are, as float32."""
    volume = np.empty((len(list(folder.iterdir())), 512, 512), np.float32)
    for k, path in enumerate(sorted(folder.iterdir())):
        raw = path.read_bytes()
        volume[k] = np.frombuffer(raw, "<i2", 512 * 512, len(raw) - 512 * 512 * 2).reshape(512, 512)
    return volume


def peak_of(folder: Path) -> float:
    """Peak memory of reading the series, beyond that of the interpreter and its imports, in sizes of the array."""
    code = (
        "import re, sys; from medlora import scans\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "scans.read(sys.argv[1]); first = peak(); array = scans.read(sys.argv[2])[0].array\n"
        "print((peak() - first) / array.nbytes)"
    )
    one = sorted(folder.iterdir())[0]
    command = [sys.executable, "-c", code, one, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def readers() -> dict[str, Callable[[Path], np.ndarray]]:
    found = {"medlora": by_medlora}
    try:
        import SimpleITK  # noqa: F401

        found["SimpleITK"] = by_simpleitk
    except ImportError:
        print("SimpleITK is not installed: left out")
    return found | {"MONAI PydicomReader": by_monai("PydicomReader"), "MONAI ITKReader": by_monai("ITKReader")}


def headers(folder: Path, repeat: int) -> None:
    files = [path for path in scans.list_files(folder) if scans.read_header(path).kind == "dicom"]
    size = sum(path.stat().st_size for path in files) / len(files)
    print(f"\nheaders of {len(files)} files of {size / 1000:.0f} KB in the mean: {folder.name}")

    def each(read: Callable[[Path], object]) -> Callable[[], object]:
        return lambda: [read(path) for path in files]

    plain = best(each(lambda path: pydicom.dcmread(path, stop_before_pixels=True)), repeat)
    ours = best(each(scans.read_header), repeat)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.map(scans.read_header, files[:64])
        several = best(lambda: pool.map(scans.read_header, files, chunksize=64), repeat)
    whole = best(lambda: scans.survey(folder, headers=[scans.read_header(path) for path in files]), repeat)
    for name, seconds in {
        "pydicom.dcmread(stop_before_pixels=True)": plain,
        "read_header": ours,
        f"read_header, {os.cpu_count()} processes": several,
        "read_header and survey": whole,
    }.items():
        print(f"  {name:42s} {len(files) / seconds:8.0f} files/s  {plain / seconds:5.1f} ×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=Path, action="append", default=[], help="also time headers of these files")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    found = readers()
    with tempfile.TemporaryDirectory() as temporary:
        for name, syntax in CODECS.items():
            folder = Path(temporary) / name.replace(" ", "-")
            write_series(folder, syntax, arguments.slices)
            stored = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            print(f"\n{name}: {arguments.slices} slices of 512 × 512, {stored:.0f} MB")
            first = None
            if name == "uncompressed":
                seconds = best(lambda folder=folder: limit(folder), arguments.repeat)
                print(f"  {'limit: bytes and frombuffer':28s} {seconds:6.2f} s")
            for reader, read in found.items():
                try:
                    array = read(folder)
                    seconds = best(lambda read=read, folder=folder: read(folder), arguments.repeat)
                except Exception as error:
                    print(f"  {reader:28s} cannot read it ({type(error).__name__}: {str(error)[:60]})")
                    continue
                first = first or seconds
                print(f"  {reader:28s} {seconds:6.2f} s  {seconds / first:5.1f} × medlora  {array.dtype} {array.shape}")
            print(f"  {'peak memory of medlora':28s} {peak_of(folder):6.2f} × the array")
            if name == "uncompressed":
                headers(folder, arguments.repeat)
            shutil.rmtree(folder)
        for folder in arguments.headers:
            headers(folder, arguments.repeat)


if __name__ == "__main__":
    main()
