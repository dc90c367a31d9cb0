"""Boxes in COCO's format: the centre of each is a place, its category the label.

A box is [x, y, width, height] in pixels from the upper left corner of the image, so that the first pixel reaches from
0 to 1 and its centre is 0.5 (https://cocodataset.org/#format-data); `Scan.array` counts centres from 0. The image is
named by ``file_name``, a path in the archive; it may be one slice of a series, and the place then lies on that slice.
The diameter is the longer side in millimetres, where the scan says how large a pixel is. Boxes with ``iscrowd`` 1 are
left out by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlora.cohorts.formats.made import Record, content, table
from medlora.cohorts.labels import LabelTable
from medlora.cohorts.paths import match_paths
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.scans import ScanFiles

_TOLERANCE = 1.0  # pixels that a box may reach beyond its image


def read(
    path: Path,
    files: Sequence[Path],
    scans: Sequence[ScanFiles],
    archive: Path,
    left_out: Sequence[Path] = (),
    copies: Mapping[str, str] | None = None,
) -> LabelTable:
    """The table of one file of boxes: a row each.

    Raises:
        MedloraError: there are several files, the file is damaged, an image has another size than the file says, or a
            box does not lie in its image.
    """
    if len(files) != 1:
        raise MedloraError(f"{path} holds {len(files)} COCO files", "give one of them")
    try:
        known = json.loads(content(files[0], str(path)))
        images = {image["id"]: image for image in known["images"]}
        categories = {category["id"]: str(category["name"]) for category in known["categories"]}
        boxes = known["annotations"]
        names = {image["file_name"] for image in images.values()}
        where = _where(names, scans, archive, path.parent, left_out, copies or {})
        checked: set[str] = set()
        records = []
        for number, box in enumerate(boxes, 1):
            image = images[box["image_id"]]
            if image["file_name"] in where and image["file_name"] not in checked:
                _same_size(image, *where[image["file_name"]], number)
                checked.add(image["file_name"])
            records.append(_record(box, number, image, categories[box["category_id"]], where))
    except MedloraError:  # a ValueError too
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MedloraError(
            f"{path} does not follow COCO's format: {type(error).__name__} {error}", "export it again"
        ) from None
    return table(path, files, records, format="COCO boxes", system="voxel", keys=("file",))


def _where(
    names: set[str],
    scans: Sequence[ScanFiles],
    archive: Path,
    beside: Path,
    left_out: Sequence[Path],
    copies: Mapping[str, str],
) -> dict[str, tuple[ScanFiles, int, str]]:
    """``file_name`` → the scan, the index of the slice in it (-1 where the file holds several), its path."""
    from medlora.cohorts.joining import relative

    there = {relative(path, archive): (scan, index) for scan in scans for index, path in enumerate(scan.paths)}
    # A copied file is the one that was kept, where its scan is one file.
    kept = {scan.scan_id: relative(scan.paths[0], archive) for scan in scans if len(scan.paths) == 1}
    there |= {path: there[kept[scan_id]] for path, scan_id in copies.items() if scan_id in kept}
    same = {path: scan.scan_id for path, (scan, _) in there.items() if scan.scan_id in kept}
    outside = [relative(path, archive) for path in left_out]
    found = {}
    for name, files in match_paths(names, [*there, *outside], archive, beside, same).to.items():
        if len(files) == 1 and files[0] in there:
            scan, index = there[files[0]]
            slices = [k for k, (file, _) in enumerate(scan.planes) if file == index]
            many = len(slices) > 1 or scan.kind in ("nifti", "metaimage")
            found[name] = scan, -1 if many else (slices or [0])[0], files[0]
    return found


def _record(
    box: Mapping[str, Any],
    number: int,
    image: Mapping[str, Any],
    category: str,
    where: Mapping[str, tuple[ScanFiles, int, str]],
) -> Record:
    x, y, width, height = (float(value) for value in box["bbox"])
    inside = (
        min(x, y) >= -_TOLERANCE
        and x + width <= image["width"] + _TOLERANCE
        and y + height <= image["height"] + _TOLERANCE
    )
    if not (width > 0 and height > 0 and inside):
        raise MedloraError(
            f"box {number} of the file is empty or does not lie in its image",
            "boxes are x, y, width and height in pixels of the image as it is in the archive",
        )
    record = Record(image["file_name"], category, None, item=f"box {number}")
    if box.get("iscrowd"):
        record.reason = "it is a crowd (iscrowd)"
    if image["file_name"] not in where:
        record.reason = record.reason or "its image is not in the archive"
        return record
    scan, index, record.key = where[image["file_name"]]
    if index < 0:
        record.reason = record.reason or "its file holds several slices, and the box does not say which is meant"
    record.centre = (x + width / 2 - 0.5, y + height / 2 - 0.5, index)
    spacing = scan.header.get("PixelSpacing") or scan.header.get("ImagerPixelSpacing")
    if isinstance(spacing, list):
        record.diameter = max(width * spacing[1], height * spacing[0])
    return record


def _same_size(image: Mapping[str, Any], scan: ScanFiles, index: int, path: str, number: int) -> None:
    """Boxes of an image that was scaled or turned before it was annotated lie elsewhere."""
    size = _size(scan, Path(path).name)
    if size is not None and size != (image["width"], image["height"]):
        raise MedloraError(
            f"box {number} is of an image of {image['width']} × {image['height']} pixels, but the scan "
            f"{scan.scan_id} has {size[0]} × {size[1]}: it was annotated on another version of the image",
            "export the boxes for the images of the archive",
        )


def _size(scan: ScanFiles, name: str) -> tuple[int, int] | None:
    """Columns and rows of one of the scan's files."""
    file = next(path for path in scan.paths if path.name == name)
    if scan.kind == "dicom":
        from medlora.scans import read_header

        values = read_header(file).values
        return int(values["Columns"]), int(values["Rows"])
    if scan.kind == "image":
        from PIL import Image, ImageOps

        with Image.open(file, formats=("PNG", "JPEG")) as image:
            turned = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if turned else image.size
    return None
