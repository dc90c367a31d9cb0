"""Classes derived at run time from the user's: a parameter that reads updated, or is held as int8, a frozen batch norm.

A module stays the object it was, with its class, keys and parameters; only lookups of an adapted parameter go through
its updates. Unlike ``torch.nn.utils.parametrize``, the frozen parameter keeps its key, and the module can be pickled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medlora.adapters.sharding import sharded

Forward = Callable[..., Any]


@functools.cache
def derived(
    user: type,
    names: tuple[str, ...] = (),
    forward: Forward | None = None,
    frozen: bool = False,
    int8: tuple[str, ...] = (),
) -> type:
    """A subclass of the user's class.

    Args:
        user: the class.
        names: parameters that read as updated.
        forward: another forward, a function of a module's top level (it is pickled by its name).
        frozen: whether the module stays in evaluation mode for ever.
        int8: parameters that are held as int8 and read at full precision.
    """
    body: dict[str, Any] = {
        "__module__": user.__module__,
        "__qualname__": user.__qualname__,
        "__doc__": user.__doc__,
        "__reduce_ex__": _reduce_ex,
        "_derivation": (user, names, forward, frozen, int8),
    }
    body |= {name: _reading(name, name in names) for name in (*int8, *names)}
    if forward:
        body["forward"] = forward
    if frozen:
        body["train"] = _train_frozen
    return type(user.__name__, (user,), body)


def rederive(
    module: nn.Module,
    names: tuple[str, ...] = (),
    forward: Forward | None = None,
    frozen: bool = False,
    int8: tuple[str, ...] | None = None,
) -> None:
    """Give ``module`` the class derived so from its user's class; what it holds as int8 stays so."""
    user, *_, held = _derivation(module)
    options = (names, forward, frozen, held if int8 is None else int8)
    module.__class__ = derived(user, *options) if any(options) else user


def plain_class(module: nn.Module) -> type:
    """The user's class of ``module``."""
    return _derivation(module)[0]


def is_adapted(module: nn.Module) -> bool:
    """Whether ``module`` has a derived class for more than being held as int8."""
    return any(_derivation(module)[1:4])


def fast_forward(module: nn.Module) -> Forward | None:
    """The forward that ``module`` was given instead of its user's class's, or None."""
    forward: Forward | None = _derivation(module)[2]
    return forward


def holder(module: nn.Module, name: str) -> dict[str, Any]:
    """The dictionary of ``module`` that holds its parameter or buffer ``name``."""
    return module._parameters if name in module._parameters else module._buffers


def stored(module: nn.Module, name: str) -> Any:
    """The parameter or buffer that ``module`` holds; one held as int8 times its scales."""
    value = holder(module, name)[name]
    return value * module._buffers[f"{name}_scale"] if value.dtype is torch.int8 else value


def _derivation(module: nn.Module) -> tuple[Any, ...]:
    kind = type(module)
    return kind._derivation if "_derivation" in vars(kind) else (kind, (), None, False, ())  # type: ignore[attr-defined]


def _reading(name: str, updated: bool) -> property:
    def read(self: nn.Module) -> Tensor:
        try:
            value = stored(self, name)
            if sharded(value):  # between steps FSDP asks for what it has put there; within them it is whole
                return value
            for update in self._modules["updates"][name] if updated else ():  # type: ignore[index]
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
