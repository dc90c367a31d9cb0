"""What goes wrong by the user's hand, said once and clearly."""

from __future__ import annotations


class MedloraError(ValueError):
    """A request that cannot be carried out.

    Args:
        what: what is wrong and where (file, row, module path), with the likely cause. Never a patient identifier.
        fix: what to do about it; shown on a line of its own.
    """

    def __init__(self, what: str, fix: str | None = None) -> None:
        super().__init__(what if fix is None else f"{what}\nFix: {fix}")
        self.what = what
        self.fix = fix
