from __future__ import annotations

import os
import random
import shutil
import sqlite3
import sys

import nibabel
import numpy as np
import pydicom
import pytest
from archives import noise, uid, write_dicom

from medlora import scans
from medlora.cohorts import index
from medlora.cohorts.index import index_again, read_batch
from medlora.errors import MedloraError

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links or modes of POSIX")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "archive"
    for p in range(3):
        for s in range(2):
            for i in range(4):
                write_dicom(
                    root / f"P{p}" / f"{s}" / f"{i}", noise(i), f"{p}/{s}/{i}", f"ID{p}",
                    StudyInstanceUID=uid(p), SeriesInstanceUID=uid(p, s), Manufacturer="ACME" if p else "Other",
                )  # fmt: skip
    (root / "P0" / "notes.txt").write_text("nothing " * 50)
    return root


def test_series_and_their_headers(folder):
    found = index(folder)
    assert (found.files, found.read, found.problems) == (25, 25, {"NotAnImage": 1})
    table = found.series
    assert table["files"].tolist() == [4] * 6
    assert table["patient"].tolist() == [1, 1, 2, 2, 3, 3]
    assert table["study"].nunique() == 3 and table["series"].nunique() == 6
    assert table["Manufacturer"].tolist() == ["Other"] * 2 + ["ACME"] * 4
    assert set(table["Rows"]) == {64}
    assert table["bytes"].sum() == sum(p.stat().st_size for p in folder.rglob("[0-9]") if p.is_file())
    text = repr(found) + table.to_csv()
    assert "ID0" not in text and uid(0) not in text and uid(0, 0) not in text
    headers = {header.path: header for header in found.headers()}
    for path in folder.glob("P*/*/*"):
        assert headers[path].values["SOPInstanceUID"] == pydicom.dcmread(path).SOPInstanceUID
        assert headers[path] == scans.read_header(path)
    assert repr(scans.survey(folder, headers=headers.values())) == repr(scans.survey(folder))


def test_the_second_time_only_what_changed_is_read(folder, tmp_path):
    cache = tmp_path / "private" / "index.sqlite"
    index(folder, cache).close()
    again = index(folder, cache)
    assert again.read == 0 and len(again.series) == 6
    again.close()
    write_dicom(folder / "P1" / "0" / "0", noise(7, (32, 32)), "new", "ID9", SeriesInstanceUID=uid("new"))
    (folder / "P1" / "0" / "1").unlink()
    os.utime(folder / "P1" / "0" / "2", ns=(0, 0))
    changed = index(folder, cache)
    assert changed.read == 2
    fresh = index(folder)
    assert changed.series.equals(fresh.series)
    assert [h.to_dict() for h in changed.headers()] == [h.to_dict() for h in fresh.headers()]
    changed.close()
    moved = folder.rename(tmp_path / "moved")
    with_paths = index(moved, cache)
    assert with_paths.read == 0 and all(header.path.is_relative_to(moved) for header in with_paths.headers())
    with_paths.close()


@pytest.mark.skipif(sys.platform == "win32", reason="keeps no time of change")
def test_other_content_with_the_old_time_is_read_again(folder, tmp_path):
    """As of an archive that is unpacked over its former state."""
    index(folder, tmp_path / "cache").close()
    unpacked = folder / "P1" / "1" / "0"
    before = unpacked.stat()
    unpacked.write_bytes(unpacked.read_bytes().replace(b"ID1", b"ID8"))
    os.utime(unpacked, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = index(folder, tmp_path / "cache")
    assert again.read == 1 and (unpacked.stat().st_size, unpacked.stat().st_mtime_ns) == (
        before.st_size,
        before.st_mtime_ns,
    )
    assert [h.values["PatientID"] for h in again.headers() if h.path == unpacked] == ["ID8"]


@posix
def test_the_cache_is_for_its_owner_alone(folder, tmp_path):
    index(folder, tmp_path / "cache").close()
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_cache_of_another_version_is_made_anew(folder, tmp_path, monkeypatch):
    cache = tmp_path / "index.sqlite"
    with monkeypatch.context() as earlier:
        earlier.setitem(index.__globals__, "__version__", "0.0")
        index(folder, cache).close()
    assert index(folder, cache).read == 25
    assert index(folder, cache).read == 0


@pytest.mark.parametrize("kind", ["damaged", "other database", "image"])
def test_what_is_no_cache_is_left_alone(folder, tmp_path, kind):
    cache = tmp_path / "index.sqlite"
    index(folder, cache).close()
    if kind == "damaged":
        cache.write_bytes(b"x" * 200 + cache.read_bytes()[200:])
    elif kind == "image":
        shutil.copy(folder / "P0" / "0" / "0", cache)
    else:
        cache.unlink()
        with sqlite3.connect(cache) as database:
            database.execute("CREATE TABLE mine (x)")
        database.close()
    before = cache.read_bytes()
    with pytest.raises(MedloraError, match="is not a cache of medlora"):
        index(folder, cache)
    assert cache.read_bytes() == before
    assert index_again(folder, cache).read == 25
    assert cache.read_bytes() == before


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_to_a_cache_goes_unnoticed(folder, tmp_path, seed):
    """Cut short, zeroed, or single bytes changed: said, and where a cohort is updated all headers are read again."""
    cache = tmp_path / "index.sqlite"
    fresh = index(folder, cache)
    whole, chance = bytearray(cache.read_bytes()), random.Random(seed)
    at = chance.randrange(len(whole))
    if seed % 3 == 0:
        whole = whole[: max(at, 1)]
    elif seed % 3 == 1:
        whole[at] ^= 1 << chance.randrange(8)
    else:
        whole[at : at + 512] = chance.randbytes(len(whole[at : at + 512]))
    cache.write_bytes(whole)
    with pytest.raises(MedloraError, match="is not a cache of medlora, is damaged"):
        index(folder, cache)
    again = index_again(folder, cache)
    assert again.read == 25 and [h.to_dict() for h in again.headers()] == [h.to_dict() for h in fresh.headers()]


@pytest.mark.parametrize("image", ["a.img", "b.raw", "raw/b.raw"])
def test_the_image_of_a_pair_changes_its_header(tmp_path, image):
    root, cache = tmp_path / "archive", tmp_path / "cache"
    root.mkdir()
    voxels = np.arange(60, dtype="<i2").reshape(5, 4, 3)
    nibabel.save(nibabel.Nifti1Pair(voxels, np.eye(4)), root / "a.hdr")
    said = "ObjectType = Image\nNDims = 3\nDimSize = 3 4 5\nElementType = MET_SHORT\nElementDataFile = "
    for place in ("b.raw", "raw/b.raw"):  # a header's name says nothing
        (root / place).parent.mkdir(exist_ok=True)
        (root / f"{place.replace('/', '_')}.header").write_text(said + place + "\n")
        voxels.tofile(root / place)
    index(root, cache).close()
    changed = root / image
    changed.write_bytes(changed.read_bytes()[::-1])
    os.utime(changed, ns=(0, 0))
    again, fresh = index(root, cache), index(root)
    assert again.read < fresh.read
    assert [h.digest for h in again.headers()] == [h.digest for h in fresh.headers()]


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(MedloraError, match="is not a folder"):
        index(tmp_path / "none")


@posix
def test_links_in_circles_and_out_of_the_folder(folder, tmp_path):
    outside = write_dicom(tmp_path / "outside.dcm", noise(1), "outside")
    (folder / "loop").symlink_to(folder)
    (folder / "P0" / "self").symlink_to("self")
    (folder / "out.dcm").symlink_to(outside)
    (folder / "away").symlink_to(tmp_path)
    found = index(folder)
    assert found.files == 25
    codes = sorted(item.code.name for item in found.excluded)
    assert codes == ["CannotOpen", "LinkLeavesFolder", "LinkLeavesFolder"]


@posix
def test_files_that_git_annex_keeps_are_met_by_their_links(folder):
    objects = folder / ".git" / "annex" / "objects"
    objects.mkdir(parents=True)
    (folder / "P0" / "0" / "0").rename(objects / "MD5E-1.dcm")
    (folder / "P0" / "0" / "scan.dcm").symlink_to("../../.git/annex/objects/MD5E-1.dcm")
    (objects / "MD5E-2.dcm").write_bytes(b"an older version, to which no link leads")
    found = index(folder)
    assert found.files == 25 and found.excluded == []
    paths = {header.path.relative_to(folder).as_posix() for header in found.headers()}
    assert "P0/0/scan.dcm" in paths and not any(path.startswith(".git") for path in paths)


@posix
def test_files_that_vanish_and_names_that_are_no_text(folder):
    odd = os.path.join(os.fsencode(folder), b"\xff\xfe.dcm")  # noqa: PTH118
    shutil.copy(folder / "P0" / "0" / "0", odd)
    found = index(folder)
    assert found.files == 26
    assert os.fsencode(next(h.path for h in found.headers() if "\udcff" in str(h.path))) == odd
    ((row,), _) = read_batch(str(folder), [b"gone.dcm"])
    assert row[2] == "CannotOpen"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named_and_tried_again(folder, tmp_path):
    locked, closed = folder / "P0" / "0" / "0", folder / "P1"
    locked.chmod(0)
    closed.chmod(0)
    found = index(folder, tmp_path / "cache")
    assert found.problems["CannotOpen"] == 1 and [item.code.name for item in found.excluded] == ["CannotOpen"]
    locked.chmod(0o600)
    closed.chmod(0o700)
    found.close()
    assert index(folder, tmp_path / "cache").problems == {"NotAnImage": 1}


@pytest.mark.slow
def test_many_files_are_read_by_several_processes(tmp_path):
    root = tmp_path / "archive"
    source = write_dicom(root / "0", noise(0, (8, 8)), "source")
    for n in range(1, 6000):
        shutil.copy(source, root / str(n))
    found = index(root, workers=2)
    assert found.files == 6000 and found.series["files"].tolist() == [6000]
