"""Pictures of every step of a preparation, and of what augmentation makes of its end: a PNG and a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from medlora._version import __version__

if TYPE_CHECKING:
    from medlora.scans import Scan
    from medlora.transforms.preset import Centre, Preset

_SLICES = 9  # of a volume that are shown
_SIDE = 256  # pixels, of one slice or image in the pictures
_SHOWN = (1.0, 99.0)  # percentiles between which values without a scale of their own are shown


@dataclass(frozen=True)
class Shown:
    """A step with its picture.

    Attributes:
        name, says: what was done.
        shape: of the data: channels, rows, columns, and slices of a volume.
        spacing: millimetres of rows, columns and slices, or none where it is not known.
        low, high: least and greatest value; ``nan`` where there is none.
        unit: of the values.
        black, white: values that the picture shows black and white.
        picture: (rows, columns) uint8; channels side by side, those of volumes one below the other.
    """

    name: str
    says: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    low: float
    high: float
    unit: str
    black: float
    white: float
    picture: np.ndarray

    @property
    def span(self) -> str:
        """Least and greatest value in words."""
        return f"{self.low:.4g} to {self.high:.4g} {'' if self.unit == '0…1' else self.unit}".rstrip()

    def describe(self) -> dict[str, Any]:
        """All but the picture, as plain values."""
        return {
            "name": self.name,
            "says": self.says,
            "shape": list(self.shape),
            "spacing": None if self.spacing is None else list(self.spacing),
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "shown": [self.black, self.white],
        }


def shown(preset: Preset, scan: Scan, centre: Centre | None = None, views: int = 4, seed: int = 0) -> Iterator[Shown]:
    """Every deterministic step of ``preset``, then ``views`` random augmentations of the last; one at a time.

    Args:
        preset: the preparation.
        scan: of a modality that it reads.
        centre: RAS+ mm, where the preset reads places.
        views: how many augmentations.
        seed: of the augmentations.

    Raises:
        MedloraError: the preset does not read this scan or place.
    """
    import torch

    from medlora.scans.finite import made_finite

    step = None
    for step in preset.steps(made_finite(scan), centre):
        yield _drawn(step.name, step.says, np.asarray(step.data), step.spacing, step.unit)
    assert step is not None
    augmentation = preset.augmentation().set_random_state(seed=seed)
    says = " ".join((type(preset).augmentation.__doc__ or "").split())
    for number in range(1, views + 1):
        image = np.asarray(augmentation(torch.as_tensor(step.data)))
        yield _drawn(f"augmentation {number}", says, image, step.spacing, step.unit)


def _drawn(name: str, says: str, data: np.ndarray, spacing: tuple[float, ...] | None, unit: str) -> Shown:
    finite = data[np.isfinite(data)] if data.dtype.kind == "f" else data
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    tiles = _tiles(data)
    if unit in ("0…1", ""):
        black, white = 0.0, 1.0
    elif np.isfinite(tiles).any():
        black, white = (float(value) for value in np.nanpercentile(tiles, _SHOWN))
    else:
        black, white = 0.0, 0.0
    grey = (np.nan_to_num(tiles.astype(np.float32), nan=black) - black) / max(white - black, 1e-6)
    picture = (np.clip(grey, 0, 1) * 255).round().astype(np.uint8)
    return Shown(name, says, tuple(data.shape), spacing, low, high, unit, black, white, picture)


def _tiles(data: np.ndarray) -> np.ndarray:
    """(channels, rows, columns[, slices]) → (rows, columns): channels side by side, of volumes one below the other."""
    volume = data if data.ndim == 4 else data[..., None]
    chosen = np.unique(np.linspace(0, volume.shape[3] - 1, min(volume.shape[3], _SLICES)).round().astype(int))
    step = max(1, -(-max(volume.shape[1:3]) // (_SIDE if len(chosen) == 1 else _SIDE // 2)))
    small = volume[:, ::step, ::step][..., chosen]
    rows = [np.concatenate(list(np.moveaxis(channel, -1, 0)), axis=1) for channel in small]
    return np.concatenate(rows, axis=1 if data.ndim == 3 else 0)


def sheet(steps: list[Shown]) -> bytes:
    """One PNG with all pictures, each under its name."""
    gap, line = 8, 16
    images = [Image.fromarray(step.picture) for step in steps]
    scaled = [image.resize((image.width * k, image.height * k), 0) for image in images for k in [_enlarged(image)]]
    width = max(image.width for image in scaled) + 2 * gap
    height = sum(image.height + line + 2 * gap for image in scaled)
    page = Image.new("L", (width, height), 255)
    draw, top = ImageDraw.Draw(page), gap
    for step, image in zip(steps, scaled, strict=True):
        draw.text((gap, top), _ascii(f"{step.name}: {_size(step)}"), fill=0)
        page.paste(image, (gap, top + line))
        top += image.height + line + 2 * gap
    return _png(page)


def page(steps: list[Shown], preset: Preset, scan: Scan) -> str:
    """A page that needs no other file: each step with its picture, shape, spacing and values; no identifiers."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("medlora.transforms", "."), autoescape=True)
    rows = [
        {
            "step": step,
            "size": _size(step),
            "source": "data:image/png;base64," + base64.b64encode(_png(Image.fromarray(step.picture))).decode("ascii"),
            "zoom": _enlarged(Image.fromarray(step.picture)) * step.picture.shape[1],
        }
        for step in steps
    ]
    return environment.get_template("preview.html.jinja").render(
        rows=rows,
        preset=preset,
        says=" ".join((type(preset).__doc__ or "").split("Args:")[0].split()),
        scan=scan,
        version=__version__,
    )


def _size(step: Shown) -> str:
    """Shape, spacing and range in one line."""
    channels, *axes = step.shape
    parts = [f"{channels} channel{'s' if channels > 1 else ''} of {' x '.join(map(str, axes))}"]
    if step.spacing is not None:
        parts.append(" x ".join(f"{value:.3g}" for value in step.spacing) + " mm")
    parts.append(step.span)
    return ", ".join(parts)


def _enlarged(image: Image.Image) -> int:
    return max(1, _SIDE // max(image.size))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _ascii(text: str) -> str:
    """``text`` for Pillow's own font, which knows Latin-1 only."""
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")
