"""What the headers of a series share is compared, not read again.

The files of a series differ in a few elements; all others are the same bytes. A `Template` holds the elements of a
file that was walked, joined to blocks between those known to vary. The header of the next file is then some ten
comparisons of bytes, and a reading of the elements that vary. Bytes that are equal mean the same, so the result is
that of the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from medlora.scans.header import Values

# The bytes of one or several elements, their values, and those that need a second look (`walk._walk`).
Part = tuple[bytes, Values, tuple[Any, ...]]
# Reads the element at a place of the buffer; None where it is another element than the one whose bytes are given.
Read = Callable[[bytes, int, bytes, bool], "Part | None"]

_MOST_TEMPLATES = 16
_MATURE = 20  # after so many files a difference means another series, not an element that varies
_HOPELESS = 12  # headers of a kind that never match are not compared any longer


class Template:
    """The elements of files that were alike.

    Args:
        explicit: whether the data set writes its VRs.
        parts: the elements in order, without that of the pixels.
        end: the pixel element up to its first byte of pixels.
        keyword: of the pixel element.
        length: of its value, -1 where undefined.
    """

    def __init__(self, explicit: bool, parts: list[Part], end: bytes, keyword: str, length: int) -> None:
        self.explicit, self.parts, self.end, self.keyword, self.length = explicit, parts, end, keyword, length
        self.varies = [False] * len(parts)
        self.matched = 0
        self._join()

    def _join(self) -> None:
        """Blocks of the elements between those that vary; of the latter, their number."""
        blocks: list[Part | int] = []
        run: list[Part] = []
        for i, part in enumerate(self.parts):
            if self.varies[i]:
                blocks += [_joined(run), i] if run else [i]
                run = []
            else:
                run.append(part)
        self.blocks = (*blocks, _joined(run)) if run else tuple(blocks)

    def match(self, buffer: bytes, position: int, read: Read) -> tuple[Values, list[Any], tuple[str, int, int]] | None:
        """Values, odd elements and pixels of the data set at ``position``; None where it is of another kind.

        Raises:
            IndexError: the buffer ends before the header does.
        """
        values: Values = {}
        odd: list[Any] = []
        parts = self.parts
        for block in self.blocks:
            if block.__class__ is int:
                part = parts[block]
                if not buffer.startswith(part[0], position):
                    fresh = read(buffer, position, part[0], self.explicit)
                    if fresh is None:
                        return None
                    part = parts[block] = fresh
            else:
                part = block  # type: ignore[assignment]
                if not buffer.startswith(part[0], position):
                    if position + len(part[0]) > len(buffer) and part[0].startswith(buffer[position:]):
                        raise IndexError  # so far the same: more of the file has to be read
                    return None
            position += len(part[0])
            if part[1]:
                values.update(part[1])
            if part[2]:
                odd += part[2]
        if not buffer.startswith(self.end, position):
            return None
        self.matched += 1
        return values, odd, (self.keyword, position + len(self.end), self.length)

    def learn(self, other: Template) -> bool:
        """Take over the elements of another file; False where it has other elements than this one."""
        if len(other.parts) != len(self.parts) or other.end[:4] != self.end[:4]:
            return False
        if any(a[0][:4] != b[0][:4] for a, b in zip(self.parts, other.parts, strict=True)):
            return False
        if self.matched < _MATURE:
            self.varies = [
                known or a[0] != b[0] for known, a, b in zip(self.varies, self.parts, other.parts, strict=True)
            ]
        self.matched = 0
        self.parts, self.end, self.length = other.parts, other.end, other.length
        self._join()
        return True


def _joined(parts: Sequence[Part]) -> Part:
    values: Values = {}
    for _, held, _ in parts:
        values.update(held)
    return b"".join(raw for raw, _, _ in parts), values, tuple(item for _, _, odd in parts for item in odd)


class Templates:
    """The templates of the last kinds of headers met, the latest first."""

    def __init__(self) -> None:
        self._kept: list[tuple[Hashable, Template]] = []
        self._met: dict[Hashable, int] = {}

    def match(
        self, buffer: bytes, position: int, explicit: bool, read: Read
    ) -> tuple[Values, list[Any], tuple[str, int, int]] | None:
        """See `Template.match`."""
        for place, (kind, template) in enumerate(self._kept):
            if template.explicit is explicit:
                found = template.match(buffer, position, read)
                if found is not None:
                    if place:
                        self._kept = [(kind, template), *(kept for kept in self._kept if kept[1] is not template)]
                    if template.matched == 1:
                        self._met[kind] = 1
                    return found
        return None

    def wanted(self, kind: Hashable) -> bool:
        """Whether a header of this kind should be kept: from the second one on, unless they never match."""
        if len(self._met) > 10_000:
            self._met.clear()
        count = self._met[kind] = self._met.get(kind, 0) + 1
        return 1 < count < _HOPELESS

    def keep(self, kind: Hashable, template: Template) -> None:
        """Remember the elements of a file."""
        for other, known in self._kept:
            if other == kind and known.learn(template):
                return
        self._kept = [(kind, template), *self._kept][:_MOST_TEMPLATES]
