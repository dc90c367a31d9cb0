"""An adapter in place on a model: attached, merged, switched off, taken off again, saved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters import summary
from medlora.adapters.derive import FORWARDS, rederive
from medlora.adapters.fast import forward_for, frozen_forward_for
from medlora.adapters.methods import Method
from medlora.adapters.targets import Target
from medlora.errors import MedloraError


@dataclass
class Site:
    """A module whose class changes while the adapter is active: updates by parameter name, or a frozen norm."""

    path: str
    module: nn.Module
    updates: Any
    frozen: bool

    def activate(self) -> None:
        """Let the module compute with its updates."""
        module = self.module
        names: tuple[str, ...] = ()
        fast = frozen_forward_for(module) if self.frozen else None
        if self.updates is not None:
            module._modules["updates"] = self.updates
            names = tuple(self.updates)
            fast = forward_for(module, list(self.updates["weight"])) if names == ("weight",) else None
        forward = next((name for name, f in FORWARDS.items() if f is fast), None)
        rederive(module, names, forward, self.frozen)
        if self.frozen:
            module.training = False

    def deactivate(self, training: bool) -> None:
        """Make the module what it was."""
        rederive(self.module)
        self.module._modules.pop("updates", None)
        if self.frozen:
            self.module.training = training


@dataclass
class Owned:
    """A parameter or buffer that is trained itself (head, bias): the original is set aside, a copy in its place."""

    key: str
    module: nn.Module
    name: str
    original: Tensor
    trained: Tensor

    def put(self, tensor: Tensor) -> None:
        """Put ``tensor`` in the place of the parameter or buffer."""
        store = self.module._parameters if self.name in self.module._parameters else self.module._buffers
        store[self.name] = tensor  # type: ignore[assignment]


class Adapter:
    """A small trained part on a frozen model; made by :func:`attach` and :func:`load`.

    Attributes:
        model: the model, still the user's own object.
        method: what was attached.
        targets: the weights that change, in the order of the model.
        head: paths of the modules trained as head.
        batchnorm: "frozen" or "adapt".
        state: "active", "merged", "disabled" or "detached".
        silent: targets whose gradient was zero in the proof of effect.
        read_elsewhere: paths of targets whose weight is read without a call of their module, as far as the probe saw.
        proved: whether a probe showed that the forward pass reads every target.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        targets: list[Target],
        head: tuple[str, ...],
        batchnorm: str,
        sites: list[Site],
        owned: list[Owned],
    ) -> None:
        self.model, self.method, self.targets, self.head, self.batchnorm = model, method, targets, head, batchnorm
        self.silent: list[Target] = []
        self.proved = False
        self.read_elsewhere: set[str] = set()
        self.state = "detached"
        self._sites, self._owned = sites, owned
        self._flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._merged: list[tuple[nn.Module, str, Any]] = []

    def _activate(self) -> None:
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        for item in self._owned:
            item.put(item.trained)
        for site in self._sites:
            site.activate()
        vars(self.model)["_medlora_adapter"] = self
        self.state = "active"

    def _deactivate(self) -> None:
        for site in self._sites:
            site.deactivate(self.model.training)
        for item in self._owned:
            item.put(item.original)

    # --- what is trained -------------------------------------------------------------------------------------------

    def parameters(self) -> Iterator[nn.Parameter]:
        """The tensors to give to an optimizer: those of the updates, then those of the head."""
        for tensor in self.named_tensors().values():
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                yield tensor

    def named_tensors(self) -> dict[str, Tensor]:
        """All tensors of the adapter by key, as in its file: updates, frozen A of LoRA-FA, head, adapted statistics."""
        tensors: dict[str, Tensor] = {}
        for site in self._sites:
            for name, chain in (site.updates or {}).items():
                key = site.path if name in ("weight", "bias") else f"{site.path}.{name}"
                for update in chain:
                    tensors |= {f"{key}.{suffix}": tensor for suffix, tensor in update.tensors()}
        return tensors | {item.key: item.trained for item in self._owned}

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of :meth:`named_tensors`, detached, for a checkpoint."""
        return {key: tensor.detach() for key, tensor in self.named_tensors().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy ``tensors`` (as of :meth:`state_dict`) into the adapter.

        Raises:
            MedloraError: a tensor is missing, unknown or of another shape; nothing is copied then.
        """
        own = self.named_tensors()
        missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        if missing or unknown:
            lacking = f" ({missing[0]} …)" if missing else ""
            strange = f" ({unknown[0]} …)" if unknown else ""
            raise MedloraError(
                f"the tensors are not those of this adapter: {len(missing)} missing{lacking}, "
                f"{len(unknown)} unknown{strange}"
            )
        for key, tensor in tensors.items():
            if tensor.shape != own[key].shape:
                raise MedloraError(f"{key} has shape {tuple(tensor.shape)}, here it is {tuple(own[key].shape)}")
        state = self.state
        if state == "merged":
            self.unmerge()
        with torch.no_grad():
            for key, tensor in tensors.items():
                own[key].copy_(tensor)
        if state == "merged":
            self.merge()

    # --- states ----------------------------------------------------------------------------------------------------

    def _require(self, state: str, what: str) -> None:
        if self.state != state:
            raise MedloraError(f"cannot {what}: the adapter is {self.state}, not {state}")

    @torch.no_grad()
    def merge(self) -> None:
        """Write the updated weights in the place of the frozen ones: a plain model, as fast as the base.

        The frozen tensors are set aside, so :meth:`unmerge` gives them back bit for bit.
        """
        self._require("active", "merge")
        merged = [
            (site.module, name, getattr(site.module, name).detach().clone())
            for site in self._sites
            for name in site.updates or ()
        ]
        for site in self._sites:
            site.deactivate(self.model.training)
        for module, name, tensor in merged:
            self._merged.append((module, name, module._parameters[name]))
            module._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        self.state = "merged"

    def unmerge(self) -> None:
        """Undo :meth:`merge`."""
        self._require("merged", "unmerge")
        for module, name, tensor in self._merged:
            module._parameters[name] = tensor
        self._merged = []
        for site in self._sites:
            site.activate()
        self.state = "active"

    @contextmanager
    def disabled(self) -> Iterator[nn.Module]:
        """Within the block the model is the base: no updates, its own head and batch norms."""
        state = self.state
        if state == "merged":
            self.unmerge()
        self._require("active", "disable")
        self._deactivate()
        self.state = "disabled"
        try:
            yield self.model
        finally:
            for item in self._owned:
                item.put(item.trained)
            for site in self._sites:
                site.activate()
            self.state = "active"
            if state == "merged":
                self.merge()

    def detach(self) -> nn.Module:
        """Take the adapter off: the model is what it was before, bit for bit, keys and flags included."""
        if self.state == "merged":
            self.unmerge()
        self._require("active", "detach")
        self._deactivate()
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        del vars(self.model)["_medlora_adapter"]
        self.state = "detached"
        return self.model

    # --- what people read ------------------------------------------------------------------------------------------

    def save(
        self, folder: str | os.PathLike[str], info: Mapping[str, Any] | None = None, card: str | None = None
    ) -> None:
        """Write the adapter into a new or empty folder; see :mod:`medlora.adapters.store`."""
        from medlora.adapters.store import save

        save(self, folder, info, card)

    def summary(self) -> str:
        """A table: per role the number of targets and trained parameters, then head and total."""
        return summary.table(self)

    def picture(self) -> str:
        """An SVG image: trained parameters per block, coloured by role. A notebook shows it by itself."""
        return summary.picture(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.summary())}</pre>{self.picture()}"

    def __repr__(self) -> str:
        return f"Adapter({self.method.name} on {type(self.model).__name__}, {len(self.targets)} targets, {self.state})"


def adapter_of(model: nn.Module) -> Adapter | None:
    """The adapter attached to ``model`` (or to the model that it was copied from), if any."""
    return vars(model).get("_medlora_adapter")
