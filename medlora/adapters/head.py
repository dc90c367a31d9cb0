"""Where the classifier of a model is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from torch import nn

from medlora.errors import MedloraError


def within(path: str, heads: Iterable[str]) -> bool:
    """Whether ``path`` is one of ``heads`` or lies below one."""
    return any(path == head or path.startswith(head + ".") for head in heads)


def head_paths(model: nn.Module) -> tuple[str, ...]:
    """The paths of the classifier's modules: from timm's ``pretrained_cfg`` or ``get_classifier``; empty if unknown.

    A path is kept only where the module has parameters, so a model made with ``num_classes=0`` has no head.
    """
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    paths = [named] if isinstance(named, str) else list(named)
    modules = dict(model.named_modules())
    if not paths and callable(getattr(model, "get_classifier", None)):
        found = model.get_classifier()  # type: ignore[operator]
        parts = found if isinstance(found, (tuple, list)) else [found]
        paths = [path for path, module in modules.items() for part in parts if module is part]
    return tuple(p for p in paths if p in modules and any(True for _ in modules[p].parameters()))


def chosen_head(model: nn.Module, train_head: bool | str | Sequence[str] | None) -> tuple[str, ...]:
    """The paths to train as head.

    Args:
        model: any module.
        train_head: True for the classifier that the model names, False or None for none, or a path, or several.

    Raises:
        MedloraError: a path is no module of the model, or the model does not name its classifier.
    """
    if train_head is False or train_head is None:
        return ()
    if train_head is True:
        known = getattr(model, "pretrained_cfg", None) or hasattr(model, "get_classifier")
        if not known:
            raise MedloraError(
                f"{type(model).__name__} does not say which module is its classifier",
                "name it (train_head='path.of.the.head'), or train no head (train_head=False)",
            )
        return head_paths(model)
    paths = (train_head,) if isinstance(train_head, str) else tuple(train_head)
    modules = dict(model.named_modules())
    for path in paths:
        if path not in modules or not path:
            near = difflib.get_close_matches(path, list(modules), 3, 0.3)
            raise MedloraError(
                f"the model has no module {path!r} to train as its head", f"nearest names: {', '.join(near)}"
            )
    return paths
