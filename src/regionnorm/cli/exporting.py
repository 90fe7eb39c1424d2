"""Networks out of Python: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regionnorm.cli.console import printable, quick_imports
from regionnorm.files.remote import is_url

__all__ = ["export"]


def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="default, fast, a weights file, a training run's folder, a hub repository, or a "
            "name from `regionnorm models`, which is exported untrained.",
        ),
    ] = "default",
    output: Annotated[
        str | None, typer.Argument(metavar="OUT", help="The .onnx file to write.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Weights in half precision: half the size.")
    ] = False,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Write a static page that fills photos in the visitor's browser."
        ),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="For --site: onnxruntime-web's .tgz or unpacked folder, instead of fetching it.",
        ),
    ] = None,
) -> None:
    """Write a network as an ONNX file for any size of picture, or as a page with a brush.

    The file is held against the network at three sizes before it is there. inpaint and Inpainter
    take it as --model. Needs ONNX and its runtime: pip install 'regionnorm[export]'.

    \b
    Example:
      regionnorm export default model.onnx
      regionnorm inpaint photo.jpg --mask mask.png -o filled.png --model model.onnx
      regionnorm export --site site/
    """
    if output is None and site is None:
        raise ValueError("nothing to write: give an .onnx file, or --site DIR")
    for place in (output, site):
        if is_url(place):
            raise ValueError(f"{place} is a URL; export to this machine, and copy it from there")
    if runtime is not None and site is None:
        raise ValueError("--runtime goes with --site")
    with quick_imports():
        from regionnorm.exporting.onnx import check_suffix
        from regionnorm.exporting.onnx import export as write

    if output is not None:
        check_suffix(output)
    if site is not None:  # first, for what it needs may be missing
        from regionnorm.web.site import write_site

        write_site(site, name, runtime=runtime)
        size = sum(file.stat().st_size for file in Path(site).rglob("*") if file.is_file()) / 1e6
        typer.echo(f"{printable(site)}: {size:.0f} MB; to see it: python -m http.server -d {site}")
    if output is not None:
        exported = write(name, output, half=half)
        for (height, width), difference in exported.differences.items():
            typer.echo(f"{width}x{height}: largest difference {difference:.1e} of 1")
        size = exported.path.stat().st_size / 1e6
        typer.echo(f"{printable(output)}: {size:.1f} MB, largest difference {exported.largest:.1e}")
