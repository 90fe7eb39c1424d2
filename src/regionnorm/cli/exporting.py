"""Networks out of Python: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regionnorm.cli.console import printable, quick_imports

__all__ = ["export"]


def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="default, a weights file, a training run's folder, a hub repository, or a name "
            "from `regionnorm models`, which is exported untrained.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The .onnx file to write.")],
    half: Annotated[
        bool, typer.Option("--half", help="Weights in half precision: half the size.")
    ] = False,
) -> None:
    """Write a network as an ONNX file, for any size of picture.

    The file is held against the network at three sizes before it is there. inpaint and Inpainter
    take it as --model. Needs ONNX and its runtime: pip install 'regionnorm[export]'.

    \b
    Example:
      regionnorm export default model.onnx
      regionnorm inpaint photo.jpg --mask mask.png -o filled.png --model model.onnx
    """
    with quick_imports():
        from regionnorm.exporting.onnx import export as write

    exported = write(name, output, half=half)
    for (height, width), difference in exported.differences.items():
        typer.echo(f"{width}x{height}: largest difference {difference:.1e} of 1")
    size = exported.path.stat().st_size / 1e6
    typer.echo(f"{printable(output)}: {size:.1f} MB, largest difference {exported.largest:.1e}")
