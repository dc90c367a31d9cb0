"""``medlora doctor``: what this machine has, and which backbones can be used right now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medlora.cli.options import Debug, Json, show


def doctor(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the answer as JSON here.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, and which backbones can be used right now."""
    from dataclasses import asdict

    from medlora import files
    from medlora.backbones import DEFAULT, available
    from medlora.training.device import pick_device
    from medlora.training.environment import environment

    values = environment(pick_device("auto"))
    backbones = available()
    values["backbones"] = [asdict(backbone) for backbone in backbones]
    lines = [
        f"medlora {values['medlora']}, Python {values['python']}, {values['system']}, {values['cores']} cores, "
        f"device {values['device']}",
        "  ".join(f"{name} {version}" for name, version in values["packages"].items()),
        "",
        "Backbones that can be used right now, without a network:",
    ]
    for backbone in backbones:
        default = "  (the default)" if backbone.name == DEFAULT else ""
        lines.append(
            f"  {backbone.name}  {backbone.source}, {backbone.megabytes:.1f} MB, licence {backbone.licence}{default}"
        )
    lines += [
        "Any other timm model: by name where the model hub can be reached, or by name and --weights FILE.",
        "medlora makes no network call unless a backbone from the hub is asked for by name.",
        "",
        "Next: medlora demo",
    ]
    if output is not None:
        files.write_json(output, values)
    show(lines, values, as_json)
