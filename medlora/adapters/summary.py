"""What an adapter trains, as a table by role and as a picture by block."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from medlora.adapters.head import within
from medlora.adapters.targets import block_of

if TYPE_CHECKING:
    from medlora.adapters.adapter import Adapter

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Paul Tol's bright scheme


def trained(adapter: Adapter) -> Iterator[tuple[str, str, int]]:
    """Path of the module, role and number of trained values of each update and each tensor of the adapter's own."""
    roles: dict[tuple[str, str], list[str]] = {}
    for target in adapter.targets:
        roles.setdefault((target.path, target.name), []).append(target.role)
    for site in adapter._sites:
        for name, chain in (site.updates or {}).items():
            own = roles.get((site.path, name)) or roles.get((site.path, "weight")) or ["norm"]
            for index, update in enumerate(chain):  # one update for each slice of a fused weight
                size = sum(p.numel() for p in update.parameters() if p.requires_grad)
                yield site.path, own[min(index, len(own) - 1)], size
    copies = {id(item.tensor): item for item in reversed(adapter._owned)}  # a tied parameter counts once
    for item in reversed(copies.values()):
        if item.tensor.requires_grad:
            yield item.path, "head" if within(item.path, adapter.head) else "in place", item.tensor.numel()


def table(adapter: Adapter) -> str:
    """Per role the number of targets and of trained values, then the head and the total."""
    sizes: dict[str, int] = {target.role: 0 for target in adapter.targets}
    for _, role, size in trained(adapter):
        sizes[role] = sizes.get(role, 0) + size
    total = sum(sizes.values())
    base = sum(p.numel() for p, _ in adapter._flags)
    lines = [f"{'role':<18}{'targets':>9}{'trained':>12}"]
    for role, size in sizes.items():
        count = sum(target.role == role for target in adapter.targets)
        lines.append(f"{role:<18}{f'{count:,}' if count else '':>9}{size:>12,}")
    lines.append(f"{'total':<18}{len(adapter.targets):>9,}{total:>12,}   {total / base:.2%} of {base:,}")
    return "\n".join(lines)


def picture(adapter: Adapter) -> str:
    """An SVG: one bar per block in the order of the model, its length the trained values, its colours their roles."""
    blocks: dict[str, dict[str, int]] = {}
    order = {path: i for i, (path, _) in enumerate(adapter.model.named_modules())}
    for path, role, size in sorted(trained(adapter), key=lambda row: order[row[0]]):
        block = blocks.setdefault(block_of(path) or (path if role == "head" else path.partition(".")[0]), {})
        block[role] = block.get(role, 0) + size
    roles = list(dict.fromkeys(role for block in blocks.values() for role in block))
    colours = {role: COLOURS[i % len(COLOURS)] for i, role in enumerate(roles)}
    longest = max((sum(block.values()) for block in blocks.values()), default=0) or 1
    left, width, step = 8 + 7 * max((len(name) for name in blocks), default=0), 420, 18
    height = step * (len(blocks) + len(roles) + 1)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img"><title>Trained parameters per block</title>'
    ]
    for i, (name, block) in enumerate(blocks.items()):
        x, y = float(left), step * i
        out.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for role, size in block.items():
            length = width * size / longest
            out.append(
                f'<rect x="{x:.1f}" y="{y + 2}" width="{length:.1f}" height="{step - 4}" fill="{colours[role]}">'
                f"<title>{escape(role)}: {size:,}</title></rect>"
            )
            x += length
        out.append(f'<text x="{x + 5:.1f}" y="{y + 13}">{sum(block.values()):,}</text>')
    for i, role in enumerate(roles):
        y = step * (len(blocks) + 1 + i)
        out.append(f'<rect x="{left}" y="{y + 2}" width="{step - 4}" height="{step - 4}" fill="{colours[role]}"/>')
        out.append(f'<text x="{left + step}" y="{y + 13}">{escape(role)}</text>')
    return "".join([*out, "</svg>"])
