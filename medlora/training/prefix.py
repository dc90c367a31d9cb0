"""The frozen prefix of a network: what comes before its first trained weight is computed once, and trained without.

A network is cut before one of its modules. The *prefix* is everything that leads to that module's input; it holds no
trained weight, so its result, given an image, never changes. The *suffix* is the model's own forward pass in which the
modules of the prefix return zeros at no cost and the input of the cut module is put in its place, so every family of
networks is cut by one mechanism, and no network is taken apart. That a cut is right is proved on the very model: see
:func:`find_prefix`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from medlora.adapters.fast import channels_last
from medlora.training.folding import Fold, fold_for

_TRIES = 40  # cuts tried, the innermost around the first trained weight first
_PROBES = 2  # images in the proof


class _ReachedError(Exception):
    """Ends a forward pass at the cut."""


@dataclass
class _Call:
    """One call of a module, as the recording saw it."""

    path: str
    start: int
    end: int = -1
    shape: tuple[int, ...] | None = None  # of the first input for one image, where a prefix could end there
    output: Any = None
    trained: bool = False
    channels_last: bool = False  # of that first input


@dataclass
class FrozenPrefix:
    """A model cut before one module.

    Attributes:
        model: whole, with its adapter.
        cut: path of the module whose first input the prefix computes.
        shape: of that input for one image.
        skipped: paths of the modules that the suffix does not compute.
        channels_last: whether that input has its channels side by side in memory, as (N, C, H, W).
        folds: convolutions and frozen batch norms of the suffix that a training step on a CPU takes as one.
    """

    model: nn.Module
    cut: str
    shape: tuple[int, ...]
    skipped: list[str]
    _image: tuple[int, ...]
    _outputs: dict[str, Any] = field(repr=False)
    channels_last: bool = False
    folds: list[Fold] = field(default_factory=list, repr=False)

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) → what enters the cut module, (N, ``*shape``); in evaluation mode."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad():
                return _input_at(self.model, self.cut, images)
        finally:
            for module, mode in modes:
                module.training = mode

    def suffix(self, features: Tensor) -> Tensor:
        """The model's output for images whose :meth:`features` are given, (N, ``*shape``) → logits (N, K)."""
        count = len(features)
        if self.channels_last and features.device.type == "cpu":
            features = features.contiguous(memory_format=torch.channels_last)
        cut = self.model.get_submodule(self.cut)
        with ExitStack() as stack:
            for path in self.skipped:
                module = self.model.get_submodule(path)
                stack.enter_context(_returning(module, self._outputs[path], count, features))
            for fold in self.folds if _may_fold(features) else ():
                stack.enter_context(_calling(fold.conv, fold.forward))
                stack.enter_context(_calling(fold.norm, fold.after))
            stack.callback(cut.register_forward_pre_hook(lambda _m, args: (features, *args[1:])).remove)
            return self.model(features.new_zeros(()).expand(count, *self._image))


def find_prefix(model: nn.Module, example: Tensor) -> FrozenPrefix | str:
    """Cut ``model`` as late as possible before its first trained weight.

    The cut is proved on random images: its input does not require a gradient although gradients are on, so no trained
    tensor has a part in it; and every module called after the cut, the model itself included, gives the same output in
    the suffix as in the whole model, gradients of all trained tensors too.

    Args:
        model: with its adapter attached.
        example: a normalised image (1, C, H, W); it gives shape, dtype and device.

    Returns:
        The cut model, or a sentence that says why there is none.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            noise = torch.randn(_PROBES, *example.shape[1:]).to(example)
            if example.is_contiguous(memory_format=torch.channels_last):
                noise = noise.contiguous(memory_format=torch.channels_last)
            return _find(model, noise)
    finally:
        for module, mode in modes:
            module.training = mode


def _find(model: nn.Module, images: Tensor) -> FrozenPrefix | str:
    adapting = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats and _follows(module)
    ]
    calls, output = _record(model, images)
    if not output.requires_grad:
        return "no weight of the network is trained"
    first = min((call.start for call in calls if call.trained), default=None)
    if first is None:
        return "its trained weights are not read by modules of their own"
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.path] = counts.get(call.path, 0) + 1
    usable = [
        call
        for call in calls
        if call.path and counts[call.path] == 1 and call.start <= first and call.shape is not None
    ]
    around = [call for call in usable if call.end > first]  # the first trained module, and what it lies in
    others = [call for call in usable if call.end <= first]
    reason = "every place before its first trained weight is bypassed by another path through the network"
    for cut in [*reversed(around), *reversed(others)][:_TRIES]:
        before = [call for call in calls if 0 <= call.end < cut.start and counts[call.path] == 1]
        skipped = _outermost([call.path for call in before])
        if not skipped:
            break
        if any(_inside(path, skipped) for path in adapting):
            return "BatchNorm adapts its statistics in the part before the first trained weight"
        assert cut.shape is not None
        outputs = {call.path: _as_pattern(call.output, len(images)) for call in before if call.path in skipped}
        skipped = [path for path in skipped if outputs[path] is not None]
        image = tuple(images.shape[1:])
        prefix = FrozenPrefix(model, cut.path, cut.shape, skipped, image, outputs, cut.channels_last)
        if _proved(prefix, images, [call for call in calls if call.end > cut.start and call is not cut], output):
            _fold(prefix, images, output)
            return prefix
    return reason


def _follows(module: nn.Module) -> bool:
    """Whether a BatchNorm's statistics would follow the data; a frozen one refuses the training mode."""
    module.train()
    follows = module.training
    module.eval()
    return follows


def _record(model: nn.Module, images: Tensor) -> tuple[list[_Call], Tensor]:
    """Every call of a module, in order, with outputs; and the model's output."""
    calls: list[_Call] = []
    opened: list[_Call] = []
    clock = iter(range(10**9))

    def enter(path: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            frozen = bool(args) and _is_frozen_batch(args[0], len(images))
            call = _Call(path, next(clock), shape=tuple(args[0].shape[1:]) if frozen else None)
            call.channels_last = frozen and channels_last(args[0])
            calls.append(call)
            opened.append(calls[-1])

        return hook

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        call = opened.pop()
        call.end, call.output = next(clock), output
        # The innermost call that turns an input without gradient into an output with one reads a trained tensor.
        call.trained = _requires_grad(output) and not any(
            inner.trained for inner in calls if call.start < inner.start and inner.end < call.end
        )

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if not _is_update(path):
                stack.callback(module.register_forward_pre_hook(enter(path)).remove)
                stack.callback(module.register_forward_hook(leave).remove)
        output = model(images)
    return calls, output


def _proved(prefix: FrozenPrefix, images: Tensor, later: list[_Call], expected: Tensor) -> bool:
    """Whether all that the whole model computed after the cut comes out the same in the suffix."""
    given = _input_at(prefix.model, prefix.cut, images)
    if given.requires_grad:
        return False
    modules = dict(prefix.model.named_modules())
    seen: dict[str, list[Any]] = {}
    try:
        with ExitStack() as stack:
            for path in {call.path for call in later}:
                keep = seen.setdefault(path, [])
                stack.callback(
                    modules[path].register_forward_hook(lambda _m, _a, out, keep=keep: keep.append(out)).remove
                )
            output = prefix.suffix(given)
    except (RuntimeError, TypeError, ValueError, AttributeError):  # the network does not run on zeros of these shapes
        return False
    for path, outputs in seen.items():
        wanted = [call.output for call in later if call.path == path]
        if len(wanted) != len(outputs) or not all(map(_same, wanted, outputs)):
            return False
    return _gradients_equal(prefix.model, expected, output)


def _equal(prefix: FrozenPrefix, folds: list[Fold], given: Tensor, expected: Tensor) -> bool:
    prefix.folds = folds
    output = prefix.suffix(given)
    # Where an activation lies within rounding of a rectifier's edge, one of two right gradients passes there.
    return _same(expected, output) and _gradients_equal(prefix.model, expected, output, 0.05)


def _gradients_equal(model: nn.Module, expected: Tensor, output: Tensor, within: float = 1e-5) -> bool:
    """Whether the gradients of all that is trained are the same of both outputs, in a random direction."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    direction = torch.randn_like(expected)
    whole = torch.autograd.grad(expected, trained, direction, allow_unused=True, retain_graph=True)
    part = torch.autograd.grad(output, trained, direction, allow_unused=True)
    return all(_same(a, b, within) for a, b in zip(whole, part, strict=True))


def _may_fold(features: Tensor) -> bool:
    on_cpu = features.device.type == "cpu" and features.dtype is torch.float32
    return on_cpu and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def _fold(prefix: FrozenPrefix, images: Tensor, expected: Tensor) -> None:
    """Take convolutions and the frozen batch norms behind them as one, if the model then gives the same."""
    given = _input_at(prefix.model, prefix.cut, images)
    if not _may_fold(given):
        return
    calls: Counter[nn.Module] = Counter()
    outputs: list[tuple[nn.Module, Tensor]] = []
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls[module] += 1
        pairs.extend((conv, module) for conv, output in outputs if args and args[0] is output)

    def behind(module: nn.Module, _args: Any, output: Any) -> None:
        outputs.append((module, output))

    with ExitStack() as stack:
        for path, module in prefix.model.named_modules():
            if not _is_update(path) and not _inside(path, prefix.skipped):
                stack.callback(module.register_forward_pre_hook(before).remove)
                if isinstance(module, nn.Conv2d):
                    stack.callback(module.register_forward_hook(behind).remove)
        prefix.suffix(given)
    folds = [fold for pair in pairs if (fold := fold_for(*pair)) is not None]
    times = Counter(module for fold in folds for module in (fold.conv, fold.norm))
    folds = [fold for fold in folds if all(calls[m] == times[m] == 1 for m in (fold.conv, fold.norm))]
    if folds and not _equal(prefix, folds, given, expected):  # an output that is used elsewhere, too
        folds = [fold for fold in folds if _equal(prefix, [fold], given, expected)]
        folds = folds if _equal(prefix, folds, given, expected) else []
    prefix.folds = folds


def _input_at(model: nn.Module, cut: str, images: Tensor) -> Tensor:
    """The first input of the module ``cut``; nothing after it is computed."""
    reached: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...]) -> None:
        reached.append(args[0])
        raise _ReachedError

    hook = model.get_submodule(cut).register_forward_pre_hook(stop)
    try:
        model(images)
    except _ReachedError:
        return reached[0]
    finally:
        hook.remove()
    raise AssertionError(f"the model does not call {cut}")


@contextmanager
def _calling(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block ``module`` computes ``forward``."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _returning(module: nn.Module, pattern: Any, count: int, like: Tensor) -> Iterator[None]:
    """Within the block ``module`` computes nothing and returns zeros of the recorded shapes for ``count`` images."""

    def zeros(shape: Any) -> Any:
        return like.new_zeros(()).expand(count * shape[0], *shape[1:]) if isinstance(shape, torch.Size) else shape

    def forward(*_args: Any, **_named: Any) -> Any:
        return tree_map(zeros, pattern, is_leaf=lambda leaf: isinstance(leaf, torch.Size))

    with _calling(module, forward):
        yield


def _as_pattern(output: Any, count: int) -> Any:
    """``output`` with each tensor replaced by its shape for one image; none where it has no batch dimension."""
    leaves, _ = tree_flatten(output)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.dim() == 0 or len(leaf) % count:
            return None
    return tree_map(lambda leaf: torch.Size((len(leaf) // count, *leaf.shape[1:])), output)


def _is_frozen_batch(given: Any, count: int) -> bool:
    return (
        isinstance(given, Tensor)
        and given.is_floating_point()
        and given.dim() > 1
        and len(given) == count
        and not given.requires_grad
    )


def _requires_grad(output: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_flatten(output)[0])


def _same(wanted: Any, found: Any, within: float = 1e-5) -> bool:
    """Whether two outputs agree, to the rounding of their dtype or to another share of their largest value."""
    (first, shape), (second, other) = tree_flatten(wanted), tree_flatten(found)
    if shape != other:
        return False
    for a, b in zip(first, second, strict=True):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            scale = a.detach().abs().max().clamp_min(1e-6) if a.numel() else 1.0
            if a.shape != b.shape or not bool(((a - b).detach().abs() <= within * scale).all()):
                return False
        elif a is not b and a != b:
            return False
    return True


def _outermost(paths: list[str]) -> list[str]:
    """Those of ``paths`` that lie in no other."""
    chosen: list[str] = []
    for path in sorted(set(paths), key=lambda p: p.count(".")):
        if not _inside(path, chosen):
            chosen.append(path)
    return chosen


def _inside(path: str, others: list[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in others)


def _is_update(path: str) -> bool:
    return "updates" in path.split(".")
