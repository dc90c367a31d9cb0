"""Classes derived at run time from the user's: a parameter that reads updated, a batch norm that stays frozen.

A module stays the object it was, with its class, keys and parameters; only lookups of an adapted parameter go through
its updates. Unlike ``torch.nn.utils.parametrize``, the frozen parameter keeps its key, and the module can be pickled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from medlora.adapters import fast

FORWARDS: dict[str, Callable[..., Any]] = {
    "linear": fast.linear_forward,
    "conv": fast.conv_forward,
    "norm": fast.norm_forward,
}


@functools.cache
def derived(plain: type, names: tuple[str, ...] = (), forward: str | None = None, frozen: bool = False) -> type:
    """The subclass of ``plain`` whose parameters ``names`` read as updated, in evaluation for ever if ``frozen``."""
    body: dict[str, Any] = {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "__reduce_ex__": _reduce_ex,
        "_derivation": (plain, names, forward, frozen),
    }
    body |= {name: _reading(name) for name in names}
    if forward:
        body["forward"] = FORWARDS[forward]
    if frozen:
        body["train"] = _train_frozen
    return type(plain.__name__, (plain,), body)


def plain_class(module: nn.Module) -> type:
    """The user's class of ``module``."""
    kind = type(module)
    return kind._derivation[0] if "_derivation" in vars(kind) else kind  # type: ignore[attr-defined]


def _reading(name: str) -> property:
    def read(self: nn.Module) -> Tensor:
        try:
            value: Any = (self._parameters if name in self._parameters else self._buffers)[name]
            for update in self._modules["updates"][name]:  # type: ignore[index]
                value = update(value)
            return value
        except AttributeError as error:  # nn.Module.__getattr__ would answer with the frozen parameter
            raise RuntimeError(f"cannot update {name}: {error}") from error

    return property(read)


def _train_frozen(self: nn.Module, mode: bool = True) -> nn.Module:
    nn.Module.train(self, mode)
    self.training = False
    return self


def _reduce_ex(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    reduced: Any = super(type(self), self).__reduce_ex__(max(2, int(protocol)))
    return (_rebuild, type(self)._derivation, *reduced[2:])  # type: ignore[attr-defined]


def _rebuild(*derivation: Any) -> nn.Module:
    kind: Any = derived(*derivation)
    return kind.__new__(kind)
