"""The verbs, in the order in which they are used."""

from __future__ import annotations

from typing import Annotated

import typer

from medlora._version import __version__
from medlora.cli import check, compare, demo, doctor, evaluate, explain, predict, preview, train

app = typer.Typer(
    name="medlora",
    help="Fit a pretrained vision model to your own scans with a small low-rank adapter, and judge it as a radiology "
    "reviewer would. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"medlora {__version__}")
        raise typer.Exit


@app.callback()
def _medlora(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


for verb in (
    doctor.doctor,
    demo.demo,
    preview.preview,
    check.check,
    train.train,
    evaluate.evaluate,
    compare.compare,
    predict.predict,
    explain.explain,
):
    app.command()(verb)
