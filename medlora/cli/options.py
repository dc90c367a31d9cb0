"""Options that several verbs share, and how a result is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output already holds.")]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="File with the backbone's weights (safetensors or PyTorch), or 'random'."),
]
Modality = Annotated[
    str | None,
    typer.Option("--modality", help="Modality of files that do not say it (NIfTI, .mhd, PNG): CT, MR, DX …"),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]

RESEARCH_USE_ONLY = "Research use only: not a medical device."


def given_path(text: str) -> Path:
    """A path on the command line; an empty one, as of a variable that is not set, would mean the current folder."""
    if not text.strip():
        raise typer.BadParameter("the path is empty")
    return Path(text)


def show(lines: list[str], values: dict[str, Any], as_json: bool) -> None:
    """Print a verb's result: lines for a person, or one JSON object."""
    if as_json:
        print(json.dumps(values, ensure_ascii=False, default=_plain))
    else:
        print("\n".join(lines))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # numpy's scalars
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def quoted(path: str | Path) -> str:
    """``path`` as it can be pasted into a shell."""
    import shlex

    return shlex.quote(str(path))
