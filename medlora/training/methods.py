"""The methods that ``train`` knows by name, and how a method in Python and the settings say the same."""

from __future__ import annotations

import dataclasses
from typing import Any

from medlora import adapters
from medlora.adapters import Method
from medlora.errors import MedloraError
from medlora.training.config import Config

METHODS = {
    kind.name: kind
    for kind in (
        adapters.LoRA,
        adapters.DoRA,
        adapters.LoRAFA,
        adapters.SSF,
        adapters.BitFit,
        adapters.NormTuning,
        adapters.Probe,
        adapters.Full,
    )
}


def options_of(name: str) -> set[str]:
    """What a method can be told."""
    return {field.name for field in dataclasses.fields(METHODS[name])}


def method_of(config: Config) -> Method:
    """The method that the settings name, with those of its options that they hold."""
    options = options_of(config.adapter.method)
    return METHODS[config.adapter.method](**{name: value for name, value in config.adapter if name in options})


def settings_of(method: Method | None) -> dict[str, Any]:
    """The settings that a method given in Python stands for, each of its options as it says.

    Raises:
        MedloraError: it says something that there is no setting for.
    """
    if method is None:
        return {}
    usual = type(method)().to_dict()
    values = method.to_dict()
    known = set(type(Config().adapter).model_fields)
    rest = [name for name in values if name not in known and values[name] != usual[name]]
    if rest:
        raise MedloraError(
            f"medlora.train does not take {', '.join(rest)} of {type(method).__name__}",
            "attach the method to a model with medlora.adapters.attach, and train it in your own loop",
        )
    return {f"adapter.{name}": value for name, value in values.items() if name in known}
