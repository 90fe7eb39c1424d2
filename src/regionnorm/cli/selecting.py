"""Objects selected by a rough stroke: ``select``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from regionnorm.cli.console import print_note, printable, quick_imports
from regionnorm.files.pairing import check_apart, is_same
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
    _check_places({"photo": image, "scribble": scribble}, output, preview, overwrite=overwrite)
    corners = None if box is None else _numbers("--box", box, 4, "120,80,340,300")
    clicks = [_numbers("--point", one, 2, "240,160") for one in point or ()]
    with quick_imports():
        import numpy as np
        from PIL import Image

        from regionnorm.files.whole import decode
        from regionnorm.imaging import (
            check_mask_writable,
            check_size,
            check_writable,
            write_image,
        )
        from regionnorm.masks.check import paint_preview
        from regionnorm.masks.levels import read_levels
        from regionnorm.masks.selection import find_segmenter, select_object
        from regionnorm.photo import read_photo

    check_mask_writable(output)
    photo, stroke = read_photo(image), None
    check_size(output, photo.size)
    if preview is not None:
        check_writable(preview, "RGB", photo.size)
    network = find_segmenter() if segmenter == "auto" else segmenter
    notes: tuple[str, ...] = ()
    if scribble is not None:
        stroke, notes = decode(as_place(scribble), lambda drawn, _: read_levels(drawn))
    for note in notes:
        print_note(f"Warning: {scribble}: {note.replace('the mask', 'the scribble')}")
    found = select_object(
        photo.colours(),
        stroke,
        box=None if corners is None else (corners[0], corners[1], corners[2], corners[3]),
        points=[(x, y) for x, y in clicks],
        grow=grow,
        segmenter=None if network in ("", "none") else network,
    )
    write_image(Image.fromarray(np.where(found, np.uint8(255), np.uint8(0))), output)
    if preview is not None:
        write_image(paint_preview(photo, found), preview)
    if network is None:
        print_note(
            "Note: there is no network that finds objects here; one finds more (--segmenter)"
        )
    if found.all():
        print_note("Note: the selection covers the whole photo; try a narrower stroke, or a box")
    typer.echo(f"{printable(as_place(output))} ({found.mean():.1%} of the photo)")


def _check_places(
    inputs: Mapping[str, str | None], output: str, preview: str | None, *, overwrite: bool
) -> None:
    """Refuse results that would replace an input, each other or, unasked, another file."""
    check_apart({"mask": output, "preview": preview})
    for target in (output, preview):
        if target is None or not (place := as_place(target)).exists():
            continue
        for what, given in inputs.items():
            if given is not None and is_same(as_place(given), place):
                raise ValueError(
                    f"the output {target} is also the {what} given; choose another place"
                )
        if not overwrite:
            raise ValueError(f"{target} exists; allow replacing it")


def _numbers(option: str, text: str, count: int, example: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"{option} is {text!r}; give whole pixels, such as {example}")
    return numbers
