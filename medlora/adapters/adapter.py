"""An adapter in place on a model: attached, merged, switched off, taken off again, saved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters import recompute, summary
from medlora.adapters.derive import holder, rederive, stored
from medlora.adapters.fast import forward_for
from medlora.adapters.methods import Method
from medlora.adapters.norms import frozen_forward_for, norms, statistics
from medlora.adapters.sharding import require_whole, whole
from medlora.adapters.targets import Target
from medlora.errors import MedloraError


@dataclass
class Site:
    """A module whose class changes while the adapter is active.

    It has updates by parameter name, is a frozen norm, or an activation whose input is computed again.
    """

    path: str
    module: nn.Module
    updates: Any  # nn.ModuleDict of nn.ModuleLists, or None
    frozen: bool
    again: bool = False  # a layer whose output is computed again, or the activation that takes it
    mode: bool | None = None  # training or not, of a frozen norm that had another mode than its model
    last: tuple[torch.device, torch.dtype] | None = None  # of the weight when the updates were taken out

    def activate(self, training: bool) -> None:
        """Let the module compute with its updates; ``training`` is the model's mode."""
        module = self.module
        if self.updates is not None:
            device, dtype = self._kind()
            if self.last not in (None, (device, dtype)):  # the model was moved or cast meanwhile
                self.updates.to(device, dtype if dtype.is_floating_point else None)
            module._modules["updates"] = self.updates
            whole = tuple(self.updates) == ("weight",)
            forward = forward_for(module, list(self.updates["weight"])) if whole else None
            rederive(module, tuple(self.updates), recompute.linear_forward if self.again else forward, self.frozen)
        elif self.again:
            rederive(module, (), recompute.activation_forward)
        else:
            rederive(module, (), frozen_forward_for(module), True)
        if self.frozen:
            self.mode = None if module.training == training else module.training
            module.training = False

    def deactivate(self, training: bool) -> None:
        """Make the module what it was."""
        rederive(self.module)
        if self.updates is not None:
            self.last = self._kind()
            del self.module._modules["updates"]
        if self.frozen:
            self.module.training = training if self.mode is None else self.mode

    def _kind(self) -> tuple[torch.device, torch.dtype]:
        weight: Any = self.module._parameters[next(iter(self.updates))]
        return weight.device, weight.dtype

    def updated(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that the module computes with, by name, in their own precision under autocast too."""
        for name in self.updates or ():
            with torch.no_grad(), torch.autocast(stored(self.module, name).device.type, enabled=False):
                tensor = getattr(self.module, name).detach().clone()
            yield name, tensor


@dataclass
class Substitute:
    """A tensor in the place of a parameter or buffer, whose original is set aside."""

    path: str
    module: nn.Module
    name: str
    original: Tensor
    tensor: Tensor

    @property
    def key(self) -> str:
        """The key of the original in the model's state."""
        return f"{self.path}.{self.name}" if self.path else self.name

    def put(self, original: bool = False) -> None:
        """Put the substitute in its place, or the original back."""
        put(self.module, self.name, self.original if original else self.tensor)


def put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put ``tensor`` in the place of a parameter or buffer; if the model was moved or cast meanwhile, it follows."""
    here = holder(module, name)[name]
    dtype = here.dtype if here.is_floating_point() and tensor.is_floating_point() else tensor.dtype
    if (tensor.device, tensor.dtype) != (here.device, dtype):
        tensor.data = tensor.data.to(here.device, dtype)
    holder(module, name)[name] = tensor


@dataclass(eq=False, repr=False)
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

    model: nn.Module
    method: Method
    targets: list[Target]
    head: tuple[str, ...]
    batchnorm: str
    _sites: list[Site]
    _owned: list[Substitute]
    _substitutes: list[Substitute] = field(default_factory=list)  # of the merged or disabled state
    state: str = "detached"
    silent: list[Target] = field(default_factory=list)
    read_elsewhere: set[str] = field(default_factory=set)
    proved: bool = False

    def __post_init__(self) -> None:
        self._flags = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]

    def _activate(self) -> None:
        for item in self._substitutes:
            item.put(original=True)
        self._substitutes = []
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        for item in self._owned:
            item.put()
        for site in self._sites:
            site.activate(self.model.training)
        vars(self.model)["_medlora_adapter"] = self
        self.state = "active"

    def _deactivate(self) -> None:
        for site in self._sites:
            site.deactivate(self.model.training)
        for item in self._owned:
            item.put(original=True)

    def _substitute(self, state: str, weights: list[Substitute]) -> None:
        """Put ``weights`` in place, and copies of the statistics, so that training mode moves those."""
        copies = [Substitute(p, m, n, b, b.clone()) for p, m, n, b in statistics(norms(self.model))]
        self._substitutes = weights + copies
        for item in self._substitutes:
            item.put()
        self.state = state

    def parameters(self) -> Iterator[nn.Parameter]:
        """The tensors to give to an optimizer, each once: those of the updates, then those of the head."""
        for tensor in {id(t): t for t in self.named_tensors().values()}.values():
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
        held = self.state == "active"  # in their place they may be what FSDP has made of them
        return tensors | {o.key: holder(o.module, o.name)[o.name] if held else o.tensor for o in self._owned}

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of :meth:`named_tensors`, detached and whole, for a checkpoint."""
        return {key: whole(tensor.detach()) for key, tensor in self.named_tensors().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy ``tensors`` (as of :meth:`state_dict`) into the adapter.

        Raises:
            MedloraError: a tensor is missing, unknown or of another shape; nothing is copied then.
        """
        own = self.named_tensors()
        if wrong := sorted(own.keys() ^ tensors.keys()):
            what = "missing" if wrong[0] in own else "unknown"
            raise MedloraError(f"the tensors are not those of this adapter: {wrong[0]} is {what} ({len(wrong)} such)")
        for key, tensor in tensors.items():
            if tensor.shape != own[key].shape:
                raise MedloraError(f"{key} has shape {tuple(tensor.shape)}, here it is {tuple(own[key].shape)}")
        with self._unmerged(), torch.no_grad():
            for key, tensor in tensors.items():
                own[key].copy_(tensor)

    def _require(self, state: str, what: str) -> None:
        require_whole(self.model, what)
        if self.state != state:
            raise MedloraError(f"cannot {what}: the adapter is {self.state}, not {state}")

    def merge(self) -> None:
        """Write the updated weights in the place of the frozen ones: a plain model, as fast as the base.

        :meth:`unmerge` gives the frozen ones back bit for bit, and the statistics of batch norms.
        """
        self._require("active", "merge")
        weights = [
            Substitute(s.path, s.module, name, holder(s.module, name)[name], nn.Parameter(tensor, False))
            for s in self._sites
            for name, tensor in s.updated()
        ]
        for site in self._sites:
            site.deactivate(self.model.training)
        self._substitute("merged", weights)

    def unmerge(self) -> None:
        """Undo :meth:`merge`."""
        self._require("merged", "unmerge")
        self._activate()

    @contextmanager
    def disabled(self) -> Iterator[nn.Module]:
        """Within the block the model is the base: no updates, its own head and batch norms (copies of them)."""
        with self._unmerged():
            self._require("active", "disable")
            self._deactivate()
            self._substitute("disabled", [])
            try:
                yield self.model
            finally:
                self._activate()

    @contextmanager
    def _unmerged(self) -> Iterator[None]:
        merged = self.state == "merged"
        if merged:
            self.unmerge()
        try:
            yield
        finally:
            if merged:
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
