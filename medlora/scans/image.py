"""PNG and JPEG files, as radiographs are exported: no geometry, bright as shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medlora.scans.codes import Code, Issue
from medlora.scans.entropy import lost
from medlora.scans.png import damage
from medlora.scans.scan import ScanError

_MOST_PIXELS = 1 << 28
_EXIF_ORIENTATION = 0x0112


def load(path: Path) -> np.ndarray:
    """Pixels as float32, shape (columns, rows, 1) or (columns, rows, 1, 3).

    16 bits stay 16; palettes and opacity become RGB; grey stored as RGB with equal channels becomes one. The
    EXIF orientation is applied.

    Raises:
        ScanError: the file is damaged or too large.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ScanError(Issue(Code.TooLarge, f"{image.width} × {image.height}"))
            if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
                raise ScanError(Issue(Code.UnknownPixelFormat, f"an animation of {image.n_frames} pictures"))
            is_jpeg = image.format in ("JPEG", "MPO")  # turning the image forgets it
            if _is_deep_colour(path):
                pixels = _deep_colour(path, image)
            else:
                image = ImageOps.exif_transpose(image)  # noqa: PLW2901
                if image.mode in ("1", "LA"):
                    image = image.convert("L")  # noqa: PLW2901
                elif not (image.mode in ("L", "F", "I") or image.mode.startswith("I;16")):
                    image = image.convert("RGB")  # noqa: PLW2901
                pixels = np.asarray(image, dtype=np.float32)
    except ScanError:
        raise
    except Image.DecompressionBombError as error:
        raise ScanError(Issue(Code.TooLarge)) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others, by plugin
        raise ScanError(Issue(Code.DamagedPixelData, type(error).__name__)) from error
    content = path.read_bytes()
    missing = lost(content, pixels) if is_jpeg else damage(content)
    if missing is not None:
        raise ScanError(Issue(Code.DamagedPixelData, missing))
    if (
        pixels.ndim == 3
        and np.array_equal(pixels[..., 0], pixels[..., 1])
        and np.array_equal(pixels[..., 0], pixels[..., 2])
    ):
        pixels = pixels[..., 0]
    return np.swapaxes(pixels, 0, 1)[:, :, None]


def _is_deep_colour(path: Path) -> bool:
    """Whether a PNG has samples of 16 bits and more than one per pixel (its IHDR): Pillow keeps 8 bits of those."""
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(b"\x89PNG") and start[24] == 16 and start[25] in (2, 4, 6)


def _deep_colour(path: Path, image: Image.Image) -> np.ndarray:
    """All 16 bits of a PNG of RGB or grey, its opacity left out."""
    import imagecodecs

    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise ScanError(Issue(Code.UnknownPixelFormat, "a PNG of 16 bits and several channels that is to be turned"))
    pixels = imagecodecs.png_decode(path.read_bytes()).astype(np.float32)
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
