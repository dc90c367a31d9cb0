"""PNG and JPEG files, as radiographs are exported: no geometry, bright as shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medlora.scans.codes import Code, Issue
from medlora.scans.scan import ScanError

_MOST_PIXELS = 1 << 28


def load(path: Path) -> np.ndarray:
    """Pixels as float32, shape (columns, rows, 1) or (columns, rows, 1, 3).

    16-bit grey stays 16-bit; palettes and opacity become RGB; grey stored as RGB with equal channels becomes one. The
    EXIF orientation is applied.

    Raises:
        ScanError: the file is damaged or too large.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ScanError(Issue(Code.TooLarge, f"{image.width} × {image.height}"))
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
    if (
        pixels.ndim == 3
        and np.array_equal(pixels[..., 0], pixels[..., 1])
        and np.array_equal(pixels[..., 0], pixels[..., 2])
    ):
        pixels = pixels[..., 0]
    return np.swapaxes(pixels, 0, 1)[:, :, None]
