"""Fill holes: ``inpaint``, and ``app``, the web page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regionnorm.cli.console import (
    ClusterAddress,
    Device,
    FitMask,
    HardMask,
    InvertMask,
    Method,
    Precision,
    Weights,
    print_error,
    print_note,
    printable,
    progress,
    quick_imports,
    quiet_decoders,
    wants_gpu,
)
from regionnorm.files.remote import Place, as_place, is_url

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from regionnorm.filling.batch import Fill, Work
    from regionnorm.filling.inpainter import Inpainter
    from regionnorm.photo import Photo

__all__ = ["inpaint", "serve_app"]


def inpaint(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A photo, or a folder of photos.")],
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            "-m",
            metavar="MASK",
            help="White = hole. A file, or a folder with the same stems; or alpha (transparent "
            "pixels), auto:scratches, auto:text, color:#ff00ff. Not needed with --expand.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="The file, or for a folder the folder, to write. Not needed with --preview or "
            "--save-mask.",
        ),
    ] = None,
    expand: Annotated[
        str | None,
        typer.Option(
            metavar="SIDES",
            help="Go on beyond the border: left=200,top=10% in pixels or per cent; all=15%.",
        ),
    ] = None,
    invert_mask: InvertMask = False,
    dilate: Annotated[
        int, typer.Option(metavar="PX", min=0, help="Grow the hole by so many pixels.")
    ] = 0,
    feather: Annotated[
        int,
        typer.Option(
            metavar="PX",
            min=0,
            help="Match the network's colours at the hole's border, fading inside.",
        ),
    ] = 0,
    fit_mask: FitMask = False,
    hard_mask: HardMask = False,
    preview: Annotated[
        str | None, typer.Option(help="Write the photo with its hole in red: a file or folder.")
    ] = None,
    save_mask: Annotated[
        str | None, typer.Option(help="Write the mask that is used: a file or folder.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="For large photos and holes: auto, original, crop or resize.")
    ] = "auto",
    method: Method = "auto",
    variants: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=99, help="Fills of a photo to choose from: OUTPUT-1 to -N."
        ),
    ] = 1,
    quality: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=100, help="For JPEG, WebP, AVIF; by default as the photo's."
        ),
    ] = None,
    model: Weights = "default",
    device: Device = None,
    precision: Precision = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Take the folders inside the folder too.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Photos of a folder worked on at once; by default 1, of a cluster all it has "
            "room for.",
        ),
    ] = None,
    cluster: ClusterAddress = None,
    report: Annotated[
        str | None, typer.Option(help="CSV file to add a line to for each photo.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.")
    ] = False,
) -> int:
    """Fill the hole of a photo, or of a folder of photos.

    The result has the photo's size, format, mode and metadata, and its pixels outside the hole
    are the photo's own, to the byte in lossless formats (PNG, TIFF, WebP, BMP, GIF). In folders,
    photos and masks are paired by file stem, photos whose result exists are skipped, and what
    fails is named at the end.

    \b
    Example:
      regionnorm inpaint photo.jpg --mask mask.png -o filled.jpg
      regionnorm inpaint photos/ --mask masks/ -o filled/ --jobs 2 --report filled.csv
      regionnorm inpaint photo.jpg --expand left=200,top=10% -o wider.jpg
      regionnorm inpaint s3://in/ --mask s3://masks/ -o s3://out/ --cluster ray://head:10001
      regionnorm inpaint scan.tif --mask auto:scratches --preview found.png --save-mask mask.png
    """
    if mask is None and expand is None:
        raise ValueError("there is nothing to fill; give --mask, or --expand")
    if not overwrite and save_mask is None and preview is None and report is None:
        there = _done_already(image, mask, output, recursive)
        if there is not None:
            _print_done([], there, output, folder=True)
            return 0
    with quick_imports():
        from regionnorm.devices import pick_device
        from regionnorm.files.pairing import check_apart
        from regionnorm.filling.any_size import check_strategy
        from regionnorm.filling.expand import Margins
        from regionnorm.filling.inpainter import Inpainter, check_method, inpaint_path
        from regionnorm.masks.check import MaskOptions

    margins = None if expand is None else Margins.parse(expand)
    make = partial(
        Inpainter,
        model,
        device=device,
        precision=precision,
        strategy=strategy,
        feather=feather,
        method=method,
    )
    folder = as_place(image).is_dir()
    outputs = _variants(image, output, variants, method, folder=folder)
    if cluster is not None and len(outputs) > 1:
        raise ValueError("--variants are filled on one machine; leave --cluster out")
    if len(outputs) > 1:
        places = {f"variant {number}": target for number, target in enumerate(outputs, start=1)}
        check_apart(places | {"mask": save_mask, "preview": preview, "report": report})
    if len(outputs) > 1 and not overwrite:
        for target in outputs:
            if target is not None and as_place(target).exists():
                raise ValueError(f"{target} exists; allow replacing the variants with --overwrite")
    if output is None:  # what a later run would stumble over
        check_strategy(strategy)
        check_method(method)
        pick_device(device)
    # Without a result to write there is nothing to load a network for.
    inpainter = _no_fill if output is None or cluster is not None else _VaryingFill(make())
    for variant, target in enumerate(outputs):
        if isinstance(inpainter, _VaryingFill):
            inpainter.variant = variant
        with (
            _workers(cluster, jobs, device, _do_not_fill if output is None else make) as work,
            quiet_decoders(),
            progress("inpaint") as on_progress,
        ):
            outcome = inpaint_path(
                inpainter,
                image,
                mask,
                target,
                recursive=recursive,
                overwrite=overwrite,
                on_progress=on_progress,
                jobs=jobs or 1,
                mask_options=MaskOptions(invert_mask, dilate, fit_mask, hard_mask),
                quality=quality,
                save_mask=save_mask,
                preview=preview,
                report=report,
                expand=margins,
                work=work,
            )
        told = save_mask is not None or preview is not None
        # Masks, previews and warnings are the same for each variant.
        extras, save_mask, preview = (save_mask, preview), None, None
        for photo, line in outcome.warnings if variant == 0 else ():
            print_note(f"Warning: {photo}: {line}")
        _print_names("left out, no photos by their names", outcome.left_out)
        copied = "" if target is None else ", copied as they are"
        _print_names(f"nothing to fill{copied}", outcome.unchanged)
        for photo, reason in outcome.failed:
            print_error(reason if str(photo) in reason else f"{photo}: {reason}")
        if outcome.skipped and told:
            print_note(
                "Note: of photos whose result is there already no mask or preview is written; "
                "--overwrite fills them again"
            )
        _print_done(outcome.done, len(outcome.skipped), target, folder)
        if target is None and not outcome.failed:
            _print_places(extras)
        if outcome.failed:
            return 1
        if target != outputs[-1] and isinstance(inpainter, _VaryingFill) and not inpainter.differ:
            print_note("Note: the network fills this hole alone, alike each time; this is all")
            break
    return 0


class _VaryingFill:
    """Variants of fills, and whether those of the last hole can differ at all."""

    def __init__(self, inpainter: Inpainter) -> None:
        self.inpainter, self.variant, self.differ = inpainter, 0, True

    def fill_photo(self, photo: Photo, hole: npt.NDArray[np.bool_], **options: Any) -> Photo:
        self.differ = self.inpainter.varies(hole)
        return self.inpainter.fill_photo(photo, hole, variant=self.variant, **options)

    def __call__(self, photo: Image.Image, hole: npt.NDArray[np.bool_]) -> Image.Image:
        return self.inpainter(photo, hole, variant=self.variant)


@contextmanager
def _workers(
    address: str | None, jobs: int | None, device: str | None, make: Callable[[], Fill]
) -> Iterator[Work | None]:
    """A cluster's workers, or None for this process."""
    if address is None:
        yield None
        return
    from regionnorm.cluster import connect, filling

    with connect(address, workers=jobs, gpu=wants_gpu(device)) as cluster:
        yield filling(cluster, make)


def _variants(
    image: str, output: str | None, count: int, method: str, *, folder: bool
) -> list[str | None]:
    """Where each variant goes: the output itself if there is one, else numbered."""
    if count == 1:
        return [output]
    if output is None or folder:
        raise ValueError("--variants goes with a single photo and an --output to number")
    if method == "network":
        raise ValueError("a network fills alike each time; --variants goes with auto or exemplar")
    from regionnorm.files.pairing import is_folder

    numbers = range(1, count + 1)
    place = as_place(output)
    if is_folder(output):
        place = place / as_place(image).name
    return [str(place.with_name(f"{place.stem}-{n}{place.suffix}")) for n in numbers]


def _done_already(image: str, mask: str | None, output: str | None, recursive: bool) -> int | None:
    """The number of a folder's photos if all are filled, without waiting for PyTorch."""
    from regionnorm.files.pairing import count_results

    if mask is None or output is None:
        return None
    place = as_place(mask)
    there = place.exists()
    if not (there or mask == "alpha" or (":" in mask and not is_url(mask))):
        return None
    return count_results(as_place(image), place if there else None, output, recursive)


def _print_names(what: str, paths: Sequence[Place]) -> None:
    if paths:
        names = ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")
        print_note(f"Note: {what}: {names} ({len(paths)} in all)")


def _do_not_fill() -> Fill:
    return _no_fill


def _no_fill(photo: Image.Image, hole: object) -> Image.Image:
    return photo


def _print_done(done: Sequence[Place], skipped: int, output: str | None, folder: bool) -> None:
    if len(done) == 1 and not skipped:
        typer.echo(printable(done[0]))
    elif done or skipped:
        there = f" ({skipped} were there already)" if skipped else ""
        typer.echo(f"{len(done)} photos in {printable(as_place(output or ''))}{there}")


def _print_places(names: Iterable[str | None]) -> None:
    for name in names:
        if name is not None:
            typer.echo(printable(as_place(name)))


def serve_app(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 to be reached from the network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 7860,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="REGIONNORM_PASSWORD", help="Ask every visitor for it.", show_envvar=True
        ),
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option(metavar="N", min=0.001, help="Refuse larger photos.")
    ] = 40,
    max_queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests that may wait; more are sent away.")
    ] = 64,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Where a proxy shows the app, e.g. /fill.")
    ] = "",
    method: Method = "auto",
    model: Weights = "default",
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Serve a web page with a brush, and the same service for programs.

    Visitors' files stay in a temporary folder that is removed at the end. Ctrl-C stops the app.

    \b
    Example:
      regionnorm app
      regionnorm app --host 0.0.0.0 --port 8000 --password secret
    """
    with quick_imports():
        from regionnorm.filling.inpainter import Inpainter
        from regionnorm.web import AppOptions, serve

    options = AppOptions(host, port, password, max_megapixels, max_queue, root_path)
    inpainter = Inpainter(model, device=device, precision=precision, method=method)
    serve(inpainter, options, on_start=lambda url: typer.echo(f"Open {url} (Ctrl-C stops it)"))
