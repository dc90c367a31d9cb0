"""The fingerprint of a frozen base, and what differs between two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters.adapter import adapter_of
from medlora.adapters.head import head_paths, within
from medlora.errors import MedloraError


def base_tensors(model: nn.Module, head: tuple[str, ...] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers of the base by name, sorted, without head, as if no adapter were on."""
    adapter = adapter_of(model)
    if head is None:
        head = adapter.head if adapter and adapter.head else head_paths(model)
    originals: dict[tuple[int, str], Tensor] = {}
    if adapter:
        aside = (*adapter._substitutes, *adapter._owned)  # the base's own, where both have one
        originals = {(id(s.module), s.name): s.original for s in aside}
    updates = {id(m) for site in adapter._sites if site.updates for m in site.updates.modules()} if adapter else set()
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):  # a shared module counts under each of its paths
        if id(module) in updates or within(path, head):
            continue
        persistent = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
        for name, tensor in {**module._parameters, **persistent}.items():
            if tensor is not None:
                found[f"{path}.{name}" if path else name] = originals.get((id(module), name), tensor)
    yield from sorted(found.items())


def table(model: nn.Module, head: tuple[str, ...] | None = None) -> dict[str, str]:
    """One line per tensor of the base: "dtype shape digest"."""
    return {
        name: f"{str(t.dtype).removeprefix('torch.')} {'x'.join(map(str, t.shape)) or 'scalar'} {_digest(t)}"
        for name, t in base_tensors(model, head)
    }


def fingerprint(model: nn.Module, head: tuple[str, ...] | None = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the frozen base, 64 hex digits.

    Parameters and persistent buffers count, the classifier does not (it belongs to the task), nor does an attached
    adapter. The same in every process and on every (little-endian) machine.

    Args:
        model: the base, bare or with an adapter in any state.
        head: paths of the modules to leave out; by default those that the model names as its classifier.
    """
    return of_table(table(model, head))


def of_table(lines: dict[str, str]) -> str:
    """The fingerprint that belongs to a :func:`table`."""
    return hashlib.sha256("".join(f"{name} {line}\n" for name, line in lines.items()).encode()).hexdigest()


def difference(saved: dict[str, str], here: dict[str, str]) -> str:
    """What differs between two tables, in words."""
    missing, extra = sorted(saved.keys() - here.keys()), sorted(here.keys() - saved.keys())
    if missing or extra:
        parts = [f"{len(missing)} tensors of the file's base are missing (first: {missing[0]})"] if missing else []
        parts += [f"{len(extra)} are new (first: {extra[0]})"] if extra else []
        return "another architecture: " + ", ".join(parts)
    kinds = {n: (saved[n].split(), here[n].split()) for n in saved if saved[n] != here[n]}
    shaped = [n for n, (a, b) in kinds.items() if a[1] != b[1]]
    if shaped:
        a, b = kinds[shaped[0]]
        return f"other shapes: {shaped[0]} is {b[1]} here and {a[1]} in the file's base ({len(shaped)} such tensors)"
    typed = [n for n, (a, b) in kinds.items() if a[0] != b[0]]
    if typed:
        a, b = kinds[typed[0]]
        return (
            f"another number format: {typed[0]} is {b[0]} here, {a[0]} in the file's base ({len(typed)} such tensors)"
        )
    return f"other weights: {len(kinds)} of {len(saved)} tensors differ (first: {next(iter(kinds), '-')})"


def _digest(tensor: Tensor) -> str:
    if tensor.is_meta:
        raise MedloraError("a model on the meta device has no weights, so no fingerprint", "load its weights first")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return hashlib.sha256(data).hexdigest()[:32]
