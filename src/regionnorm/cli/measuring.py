"""Look at networks: ``evaluate`` measures fills, ``visualize`` shows what happens inside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from regionnorm.cli.console import (
    ClusterAddress,
    Device,
    FitMask,
    InvertMask,
    print_error,
    print_note,
    print_table,
    printable,
    progress,
    quick_imports,
    quiet_decoders,
    wants_gpu,
)
from regionnorm.files.pairing import make_folder
from regionnorm.files.remote import as_place

if TYPE_CHECKING:
    from regionnorm.measuring.evaluate import Work

__all__ = ["evaluate", "visualize"]


def evaluate(
    data: Annotated[
        list[str],
        typer.Option(metavar="PATH", help="Photo folder, list file, tar shard or quoted pattern."),
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="default, fast, a weights file, exemplar, telea, ns or biharmonic; "
            "default+completion is what inpaint does.  [default: default ns telea]",
            show_default=False,
        ),
    ] = None,
    masks: Annotated[
        str | None, typer.Option(help="Folder of masks; by default a fixed set of generated ones.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Folder for report.md and report.json.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Take the first N photos.")
    ] = None,
    size: Annotated[
        int, typer.Option(metavar="PX", min=16, help="Photos are scaled and cropped to a square.")
    ] = 256,
    preset: Annotated[
        str, typer.Option(help="Metric definitions: default, released, edgeconnect or deepfill.")
    ] = "default",
    difference_to: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Also report PSNR minus this model's.")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of the fixed masks and the intervals.")
    ] = 0,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Measure this too: feature_distance or texture_distance (VGG-19), lpips, fid, or "
            "none; repeatable. By default the first two if VGG's weights are here "
            "($REGIONNORM_VGG).",
        ),
    ] = None,
    device: Device = None,
    cluster: ClusterAddress = None,
) -> int:
    """Measure PSNR, SSIM, l1 and how alike the pictures look, by masked area.

    The feature distance compares activations of VGG-19 pixel by pixel; it is not LPIPS. The
    texture distance compares their means and deviations inside the hole, so that blur counts and
    another piece of the same texture does not. LPIPS and FID come from torchmetrics and
    torchvision: pip install 'regionnorm[lpips]'.

    \b
    Example:
      regionnorm evaluate default ns telea --data photos/ --report out/report
      regionnorm evaluate runs/first/best.safetensors --data photos/ --masks masks/
    """
    with quick_imports():
        from regionnorm.data import open_source
        from regionnorm.devices import keep_freed_memory
        from regionnorm.masks import MaskFolder
        from regionnorm.measuring.evaluate import evaluate as run
        from regionnorm.measuring.evaluate import resolve_models
        from regionnorm.measuring.perceptual import (
            PERCEPTUAL_METRICS,
            FrechetDistance,
            available,
            make_metrics,
        )

    keep_freed_memory()  # an eighth of a network's time here, as batches are all of one size
    wanted = available() if metrics is None else [name for name in metrics if name != "none"]
    for name in wanted:
        if name not in (*PERCEPTUAL_METRICS, "fid"):
            known = ", ".join((*PERCEPTUAL_METRICS, "fid", "none"))
            raise ValueError(f"metric {name!r} is not known; choose from {known}")
    further = make_metrics(name for name in wanted if name != "fid")
    names = models or ["default", "ns", "telea"]
    fillers = resolve_models(names, device, jobs=os.cpu_count() or 1)
    if report is not None:
        make_folder(as_place(report))  # a place that cannot be written to is told before the work
    with _workers(cluster, names, list(further), device) as work, progress("evaluate") as advance:
        result = run(
            fillers,
            open_source(data),
            masks=None if masks is None else MaskFolder(masks),
            size=size,
            preset=preset,
            limit=limit,
            seed=seed,
            difference_to=difference_to,
            further=further,
            fid=FrechetDistance if "fid" in wanted else None,
            on_progress=advance,
            work=work,
        )
    saved = result.save(report) if report else ()  # before a terminal that may be gone
    print_table(result.to_table())
    for path in saved:
        typer.echo(path)
    for line in result.skipped:
        print_error(line)
    return 1 if result.skipped else 0


@contextmanager
def _workers(
    address: str | None, models: Sequence[str], further: Sequence[str], device: str | None
) -> Iterator[Work | None]:
    """A cluster's workers, or None for this process."""
    if address is None:
        yield None
        return
    from regionnorm.cluster import connect, evaluating
    from regionnorm.measuring.evaluate import resolve_models
    from regionnorm.measuring.perceptual import make_metrics

    with connect(address, gpu=wants_gpu(device)) as cluster:
        yield evaluating(
            cluster, partial(resolve_models, models, device), partial(make_metrics, further)
        )


def visualize(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A photo.")],
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            "-m",
            metavar="MASK",
            help="White = hole: a file, or a rule as for inpaint. Not needed with --list-layers.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="The picture to write: .png, .webp, .pdf or .svg."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="A layer, or a part of the network that holds some; repeatable. By default the "
            "last RN-B, those of the paper's Figure 8 and the last two.",
        ),
    ] = None,
    list_layers: Annotated[
        bool,
        typer.Option(
            "--list-layers", help="Print the normalisation layers and their sizes, and stop."
        ),
    ] = False,
    invert_mask: InvertMask = False,
    fit_mask: FitMask = False,
    model: Annotated[
        str, typer.Option(help="default, fast, a weights file, or a training run's folder.")
    ] = "default",
    device: Device = None,
) -> None:
    """Show what happens inside the network while it fills a photo.

    A picture with a row for each layer: spatial response, region mask, gamma, beta, and the means
    and standard deviations of the regions before and after. Photos of more than a megapixel are
    scaled down for it. Needs matplotlib: pip install 'regionnorm[study]'.

    \b
    Example:
      regionnorm visualize photo.jpg --mask mask.png -o inside.png
      regionnorm visualize photo.jpg --list-layers
      regionnorm visualize photo.jpg --mask mask.png --layer residual.5 -o block.png
    """
    with quick_imports():
        from regionnorm.inspecting import look as visualizing
        from regionnorm.masks.check import MaskOptions

    if list_layers:
        with quiet_decoders():
            sizes = visualizing.list_layers(image, model=model, device=device)
        print_table(visualizing.layer_table(sizes))
        return
    if mask is None or output is None:
        raise ValueError("--mask and --output are needed; --list-layers does without")
    with quiet_decoders():
        notes = visualizing.visualize_photo(
            image,
            mask,
            output,
            layers=layers,
            model=model,
            mask_options=MaskOptions(invert_mask, 0, fit_mask),
            device=device,
        )
    for line in notes:
        print_note(f"Note: {line}")
    typer.echo(printable(output))
