"""Several low-rank adapters on one base: switched in place, mixed within a batch, added up exactly, compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters.adapter import Adapter, adapter_of, put
from medlora.adapters.derive import holder, stored
from medlora.adapters.fast import forward_for
from medlora.adapters.mixed import Share, prove_apart, sharing, stacked
from medlora.adapters.updates import LowRank
from medlora.errors import MedloraError

Weights = dict[tuple[str, str], Tensor]


class Bank:
    """Adapters by name on one frozen model; the merged weights of each are kept, so switching moves references only.

    Args:
        model: the base; an adapter that is attached can be added.

    The memory is that of the changed weights, once per adapter. While an adapter is in use the model is a plain one.

    >>> bank = Bank(model)  # doctest: +SKIP
    >>> bank.load("lyon", "adapters/lyon")  # doctest: +SKIP
    >>> bank.load("turin", "adapters/turin")  # doctest: +SKIP
    >>> bank.use("lyon")  # doctest: +SKIP
    >>> bank.run(scans, ["lyon", "turin", "turin", None])  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.active: str | None = None
        self._modules = dict(model.named_modules())
        self._tensors: dict[str, Weights] = {}
        self._updates: dict[str, dict[tuple[str, str], list[LowRank]]] = {}
        self._base: Weights = {}
        self._shares: tuple[tuple[Any, ...], list[tuple[nn.Module, Share, tuple[str, ...]]]] | None = None
        self._proved: set[tuple[frozenset[str], torch.Size]] = set()

    def load(self, name: str, folder: str | os.PathLike[str]) -> None:
        """Add the adapter in ``folder``, which was made for this base."""
        from medlora.adapters.store import load

        with self._on_base():
            adapter = load(self.model, Path(folder))
            try:
                self.add(name, adapter)
            finally:
                if adapter.state != "detached":
                    adapter.detach()

    def add(self, name: str, adapter: Adapter) -> None:
        """Add an attached adapter under ``name`` and detach it; it may be of any method.

        Raises:
            MedloraError: the name is taken, or the adapter is not attached to this model.
        """
        if name in self._tensors:
            raise MedloraError(f"the bank has an adapter {name!r} already", "choose another name")
        if self.active is not None:
            raise MedloraError(f"the bank is using {self.active!r}", "go back to the base first: bank.use(None)")
        if adapter.model is not self.model or adapter.state != "active":
            raise MedloraError("the adapter is not active on the bank's model", "attach or load it on that model")
        tensors = {
            (site.path, parameter): nn.Parameter(tensor, False)
            for site in adapter._sites
            for parameter, tensor in site.updated()
        }
        own = {(item.path, item.name): item.tensor for item in adapter._owned}
        self._updates[name] = {
            (site.path, parameter): list(chain)
            for site in adapter._sites
            for parameter, chain in (site.updates or {}).items()
        }
        adapter.detach()
        self._tensors[name] = {**tensors, **own}
        for place in self._tensors[name]:
            self._base.setdefault(place, holder(self._modules[place[0]], place[1])[place[1]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def use(self, name: str | None) -> None:
        """Make the model that of adapter ``name``, or the base again (None)."""
        self._check(name)
        if adapter_of(self.model) is not None:
            raise MedloraError("an adapter is attached to the bank's model", "add it to the bank, or detach it")
        for place in self._tensors.get(self.active or "", {}):
            put(self._modules[place[0]], place[1], self._base[place])
        for place, tensor in self._tensors.get(name or "", {}).items():
            put(self._modules[place[0]], place[1], tensor)
        self.active = name
        vars(self.model)["_medlora_in_use"] = name

    @contextmanager
    def _on_base(self) -> Iterator[None]:
        active = self.active
        self.use(None)
        try:
            yield
        finally:
            self.use(active)

    @torch.no_grad()
    def run(self, x: Tensor, names: Sequence[str | None]) -> Any:
        """The model's answers where sample i of the batch is given to the adapter ``names[i]`` (None: the base).

        Args:
            x: the batch, (samples, …).
            names: one name per sample.

        Raises:
            MedloraError: a name is unknown, or the model mixes its samples or reads a weight without a call of its
                module, so that the samples cannot be told apart; the module is named. Nothing is left changed.
        """
        if len(names) != x.shape[0] or not names:
            raise MedloraError(f"{len(names)} names for {x.shape[0]} samples", "give each sample one name")
        if self.model.training:
            raise MedloraError("the model is in training mode, where samples may depend on each other", "model.eval()")
        for name in names:
            self._check(name)
        with self._on_base():
            if len(set(names)) == 1:
                self.use(names[0])
                return self.model(x)
            like = next(self.model.parameters())
            key = (*names, like.device, like.dtype)
            if self._shares is None or self._shares[0] != key:
                self._shares = (key, self._shared(names))
            modules = {share.path: module for module, share, _ in self._shares[1]}
            proof = (frozenset(modules), x.shape[1:])
            if proof not in self._proved:
                prove_apart(self.model, modules, x)
                self._proved.add(proof)
            with sharing(self._shares[1]):
                return self.model(x)

    def _shared(self, names: Sequence[str | None]) -> list[tuple[nn.Module, Share, tuple[str, ...]]]:
        """What every module that one of the adapters changes needs to serve all of them in one call."""
        groups = {name: [i for i, n in enumerate(names) if n == name] for name in dict.fromkeys(names)}
        changed: dict[str, dict[str, None]] = {}
        for name in groups:
            for path, parameter in self._tensors.get(name or "", {}):
                if parameter != "num_batches_tracked":
                    changed.setdefault(path, {})[parameter] = None
        shares = []
        for path, parameters in changed.items():
            module = self._modules[path]
            base = {parameter: stored(module, parameter) for parameter in parameters}
            tensors = [
                (samples, {p: self._tensors.get(name or "", {}).get((path, p), b).to(b) for p, b in base.items()})
                for name, samples in groups.items()
            ]
            factors = None
            chains = [self._updates.get(name or "", {}).get((path, "weight"), []) for name in names]
            if list(parameters) == ["weight"] and forward_for(module, [u for c in chains for u in c]):
                factors = stacked(chains, base["weight"])
            shares.append((module, Share(path, tensors, factors), tuple(parameters)))
        return shares

    def _check(self, name: str | None) -> None:
        if name is not None and name not in self._tensors:
            raise MedloraError(f"the bank has no adapter {name!r}", f"it has {', '.join(self._tensors) or 'none'}")

    def deltas(self, name: str) -> Weights:
        """W' − W of every changed weight, by (module path, parameter)."""
        with self._on_base():
            base = {p: stored(self._modules[p[0]], p[1]).detach() for p in self._updates[name]}
        return {p: self._tensors[name][p].detach() - base[p] for p in base}

    def similarity(self) -> tuple[list[str], Tensor]:
        """Names, and the cosines between the adapters' updates as one long vector each, (n, n)."""
        names = list(self._tensors)
        deltas = [self.deltas(n) for n in names]
        dots = torch.eye(len(names))
        norms = [sum(float(d.double().square().sum()) for d in ds.values()) ** 0.5 for ds in deltas]
        for i, a in enumerate(deltas):
            for j, b in enumerate(deltas[:i]):
                dot = sum(float((a[p].double() * b[p].double()).sum()) for p in a.keys() & b.keys())
                dots[i, j] = dots[j, i] = dot / (norms[i] * norms[j]) if norms[i] and norms[j] else 0.0
        return names, dots


def concatenated(updates: Sequence[LowRank], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """A (Σr, …) and B (rows, Σr) with B·A = Σ wᵢ·sᵢ·Bᵢ·Aᵢ exactly; the scale is in B."""
    a = torch.cat([u.A.detach() for u in updates])
    b = torch.cat([w * u.scale * u.B.detach() for u, w in zip(updates, weights, strict=True)], dim=1)
    return a, b


def truncated(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best approximation of B·A of that rank, and the share of its energy (squared norm) that is lost.

    The decomposition is taken of the small core of two QR factors, never of the full matrix (Eckart–Young).
    """
    flat = a.flatten(1).double()
    qb, rb = torch.linalg.qr(b.double())
    qa, ra = torch.linalg.qr(flat.T)
    u, s, vt = torch.linalg.svd(rb @ ra.T)
    energy = s.square()
    kept = min(rank, len(s))
    lost = float(energy[kept:].sum() / energy.sum()) if energy.sum() > 0 else 0.0
    root = s[:kept].sqrt()
    new_a = (root[:, None] * (vt[:kept] @ qa.T)).to(a.dtype).view(kept, *a.shape[1:])
    return new_a, ((qb @ u[:, :kept]) * root).to(b.dtype), lost


def combine(
    adapters: Sequence[Mapping[str, LowRank]], weights: Sequence[float], rank: int | None = None
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
    """The weighted sum of several adapters' updates by path: exact (ranks add up), or the best of rank ``rank``.

    Never the mean of the factors: (Σ Bᵢ)(Σ Aᵢ) has cross terms that no adapter ever had.

    Returns:
        A and B by path (scale 1), and the share of energy lost by path, zero without ``rank``.
    """
    paths = list(dict.fromkeys(p for a in adapters for p in a))
    factors, lost = {}, {}
    for path in paths:
        present = [(a[path], w) for a, w in zip(adapters, weights, strict=True) if path in a]
        a, b = concatenated([u for u, _ in present], [w for _, w in present])
        loss = 0.0
        if rank is not None:
            a, b, loss = truncated(a, b, rank)
        factors[path], lost[path] = (a, b), loss
    return factors, lost
