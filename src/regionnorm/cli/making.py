"""Masks made, networks listed, released weights converted: ``masks``, ``models``, ``convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from regionnorm.cli.console import print_table, progress

__all__ = ["convert", "masks", "models"]


def masks(
    count: Annotated[int, typer.Option(metavar="N", min=1, help="How many.")],
    out: Annotated[str, typer.Option(help="Folder to write to.")],
    interval: Annotated[
        str | None,
        typer.Option(
            metavar="LOW-HIGH",
            help="Hole's share of the area; by default 0-0.1 to 0.5-0.6 in turn.",
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(metavar="PX", min=16, max=16384, help="Width and height.")
    ] = 512,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="The same seed gives the same masks.")
    ] = 0,
    kind: Annotated[
        str, typer.Option(help="free-form, scratch, ellipse, blob, box, combined, center or mixed.")
    ] = "mixed",
) -> None:
    """Write random masks of a given area; half of them touch the border.

    \b
    Example:
      regionnorm masks --interval 0.2-0.3 --count 2000 --size 512 --seed 1 --out masks/
    """
    from regionnorm.masks import write_masks

    area = None if interval is None else _interval(interval)
    with progress("masks") as on_progress:
        written = write_masks(
            out,
            interval=area,
            count=count,
            size=size,
            seed=seed,
            kind=kind,
            on_progress=on_progress,
        )
    typer.echo(f"{written} masks in {out}")


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        raise ValueError(f"--interval is {text!r}; give LOW-HIGH, such as 0.2-0.3") from None
    return low, high


def models() -> None:
    """List the networks: what they are, parameters, statistics.

    \b
    Example:
      regionnorm models
    """
    from rich import box
    from rich.table import Table

    from regionnorm.devices import without_memory
    from regionnorm.models import create_model, describe_model, list_models

    table = Table("name", "parameters", "statistics", "description", box=box.SIMPLE)
    for name in list_models():
        with without_memory():  # counts without allocating or initialising
            model = create_model(name)
        count = sum(parameter.numel() for parameter in model.parameters())
        stats = {str(m.stats) for m in model.modules() if hasattr(m, "stats")}
        table.add_row(name, f"{count / 1e6:.1f} M", ", ".join(sorted(stats)), describe_model(name))
    print_table(table)


def convert(
    released: Annotated[
        str, typer.Argument(metavar="RELEASED", help="The .pth file of the paper's authors.")
    ],
    output: Annotated[str, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
) -> None:
    """Convert the weights that the paper's authors released.

    Their generator's weights become a file that inpaint, evaluate and Inpainter take; the network
    computes what theirs does.

    \b
    Example:
      regionnorm convert released.pth out.safetensors
      regionnorm inpaint photo.jpg --mask mask.png -o filled.png --model out.safetensors
    """
    from regionnorm.checkpoints.weights import convert_released

    model = convert_released(released, output)
    count = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{output}: {model.name}, {count / 1e6:.1f} M parameters")
