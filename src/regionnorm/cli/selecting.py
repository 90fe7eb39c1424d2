"""Objects selected by a rough stroke: ``select``."""

from __future__ import annotations

from typing import Annotated

import typer

from regionnorm.cli.console import print_note, printable, quick_imports
from regionnorm.files.remote import as_place

__all__ = ["select"]


def select(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A photo.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The mask to write; white = hole.")],
    scribble: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A rough stroke along the object: white, of the photo's size."
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="L,T,R,B", help="The object's left, top, right, bottom, in pixels."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="A click on the object; may be given several times."),
    ] = None,
    grow: Annotated[
        int, typer.Option(metavar="PX", help="Grow what is found by so many pixels; -3 shrinks it.")
    ] = 0,
    segmenter: Annotated[
        str, typer.Option(metavar="FILE", help="U²-Net as ONNX; auto: one that is there; or none.")
    ] = "auto",
    preview: Annotated[
        str | None, typer.Option(help="Write the photo with what is selected in red.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Select an object by a rough stroke, a box or clicks, and write its mask.

    \b
    Example:
      regionnorm select photo.jpg --scribble stroke.png --grow 3 -o mask.png
      regionnorm select photo.jpg --box 120,80,340,300 -o mask.png --preview seen.jpg
      regionnorm inpaint photo.jpg --mask mask.png -o filled.jpg
    """
    for target in (output, preview):
        if target is not None and as_place(target).exists() and not overwrite:
            raise ValueError(f"{target} exists; allow replacing it with --overwrite")
    corners = None if box is None else _numbers("--box", box, 4, "120,80,340,300")
    clicks = [_numbers("--point", one, 2, "240,160") for one in point or ()]
    with quick_imports():
        import numpy as np
        from PIL import Image

        from regionnorm.imaging import read_mask, write_image
        from regionnorm.masks.check import paint_preview
        from regionnorm.masks.selection import find_segmenter, select_object
        from regionnorm.photo import read_photo

    network = find_segmenter() if segmenter == "auto" else segmenter
    found = select_object(
        (photo := read_photo(image)).colours(),
        None if scribble is None else read_mask(scribble),
        box=None if corners is None else (corners[0], corners[1], corners[2], corners[3]),
        points=[(x, y) for x, y in clicks],
        grow=grow,
        segmenter=None if network == "none" else network,
    )
    write_image(Image.fromarray(np.where(found, np.uint8(255), np.uint8(0))), output)
    if preview is not None:
        write_image(paint_preview(photo, found), preview)
    if network is None:
        print_note("Note: without a network that finds objects; one finds more (--segmenter)")
    typer.echo(f"{printable(as_place(output))} ({found.mean():.1%} of the photo)")


def _numbers(option: str, text: str, count: int, example: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"{option} is {text!r}; give whole pixels, such as {example}")
    return numbers
