"""A scan in Jupyter: a montage, window presets, geometry. Everything from the file is escaped."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from medlora.scans.scan import Scan

#: Window centre and width in Hounsfield units, as radiology departments commonly set them.
CT_WINDOWS = {"lung": (-600.0, 1500.0), "soft tissue": (40.0, 400.0), "bone": (400.0, 1800.0), "brain": (40.0, 80.0)}
_TILES = 12
_TILE_SIZE = 160


def windows_of(scan: Scan) -> dict[str, tuple[float, float]]:
    """Centre and width by name: the CT presets, the file's own, and always the range of the middle 98 % of values."""
    found = dict(CT_WINDOWS) if scan.modality == "CT" else {}
    found |= {f"file {i}" if i > 1 else "file": window for i, window in enumerate(scan.windows, 1)}
    low, high = np.nanpercentile(scan.array[:: max(scan.shape[0] // 128, 1), :: max(scan.shape[1] // 128, 1)], [1, 99])
    found["1 to 99 %"] = (float(low + high) / 2, float(max(high - low, 1e-6)))
    return found


def montage(scan: Scan, window: tuple[float, float]) -> np.ndarray:
    """Up to twelve slices, evenly chosen, in one 8-bit picture: rows down, patient as the file has it."""
    depth = scan.shape[2]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, _TILES)).round().astype(int))
    centre, width = window
    step = max(1, max(scan.shape[:2]) // (_TILE_SIZE if depth > 1 else 3 * _TILE_SIZE))
    tiles = []
    for z in chosen:
        tile = np.nan_to_num(np.swapaxes(scan.array[::step, ::step, z], 0, 1))
        if tile.ndim == 3 and tile.shape[2] != 3:
            tile = tile[..., 0]
        grey = np.clip((tile - centre) / width + 0.5, 0, 1) * 255
        tiles.append(grey.astype(np.uint8))
    across = min(len(tiles), 6)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % across)
    return np.concatenate([np.concatenate(tiles[i : i + across], axis=1) for i in range(0, len(tiles), across)])


def to_html(scan: Scan) -> str:
    """The scan as a self-contained fragment of HTML; the window is chosen without any script."""
    x, y, z = scan.spacing
    size = " × ".join(map(str, scan.shape))
    lines = [f"<b>{html.escape(scan.modality or 'Scan')}</b> {html.escape(scan.scan_id)}"]
    lines.append(f"{size} voxels of {x:.4g} × {y:.4g} × {z:.4g} mm, axes {html.escape(_axes(scan))}")
    lines += [f"⚠ {html.escape(str(issue))}" for issue in scan.issues]
    parts = ["<div>", "<br>".join(lines)]
    for i, (name, window) in enumerate(windows_of(scan).items()):
        label = f"{name} (centre {window[0]:.4g}, width {window[1]:.4g})"
        parts.append(f"<details{' open' if i == 0 else ''}><summary>{html.escape(label)}</summary>")
        parts.append(f'<img alt="{html.escape(label)}" src="{_data_url(montage(scan, window))}"></details>')
    rows = "".join(
        f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in scan.header.items()
    )
    parts.append(f"<details><summary>header</summary><table>{rows}</table></details></div>")
    return "".join(parts)


def _axes(scan: Scan) -> str:
    import nibabel

    return "".join(code or "?" for code in nibabel.aff2axcodes(scan.affine))


def _data_url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
