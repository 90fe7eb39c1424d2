"""The command line. Each command parses, calls the library, and prints."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regionnorm import __version__

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from regionnorm.training import Recipe

__all__ = ["app", "main"]

# The library is imported inside the commands: help must not wait for torch.

app = typer.Typer(
    help="Fill holes in photos with Region Normalization; train and evaluate networks that do.",
    epilog="Exit codes: 0 done, 1 some inputs failed, 2 wrong usage. "
    "REGIONNORM_TRACEBACK=1 shows where an error comes from.",
    # Plain help: rich's panels would reflow the examples.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# BadParameter, UsageError, ClickException: click's own up to typer 0.28, since then typer's copy.
_ParseError: type[Exception] = typer.BadParameter.__mro__[2]

Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the best one present.")
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 done, 1 some inputs failed, 2 wrong usage, 130 interrupted.
    """
    arguments = None if argv is None else list(argv)
    try:
        status = app(args=arguments, prog_name="regionnorm", standalone_mode=False)
    except _ParseError as error:
        return _fail(_usage_message(error))
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("REGIONNORM_TRACEBACK"):
            raise
        return _fail(_message(error))
    except RuntimeError as error:  # torch has no other type for it on every device
        if not any(words in str(error) for words in ("out of memory", "allocate memory")):
            raise
        return _fail("there is not enough memory; make photos, size or batch smaller")
    return status if isinstance(status, int) else 0


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"regionnorm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def inpaint(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photo, or a folder of photos.")],
    mask: Annotated[
        str,
        typer.Option(
            "--mask",
            "-m",
            metavar="MASK",
            help="White = hole. A file, or a folder with the same stems; or alpha (transparent "
            "pixels), auto:scratches, color:#ff00ff.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file, or for a folder the folder, to write. Not needed with --preview or "
            "--save-mask.",
        ),
    ] = None,
    invert_mask: Annotated[
        bool, typer.Option("--invert-mask", help="Black = hole instead of white.")
    ] = False,
    dilate: Annotated[
        int, typer.Option(metavar="PX", min=0, help="Grow the hole by so many pixels.")
    ] = 0,
    feather: Annotated[
        int,
        typer.Option(
            metavar="PX", min=0, help="Match colours at the hole's border, fading inside it."
        ),
    ] = 0,
    fit_mask: Annotated[
        bool, typer.Option("--fit-mask", help="Scale a mask of another size to the photo's.")
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(help="Write the photo with its hole in red: a file or folder.")
    ] = None,
    save_mask: Annotated[
        Path | None, typer.Option(help="Write the mask that is used: a file or folder.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="For large photos and holes: auto, original, crop or resize.")
    ] = "auto",
    texture: Annotated[
        bool | None,
        typer.Option(
            "--texture/--no-texture",
            help="Add fine detail from the rest of the photo; by default if numba is installed.",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=100, help="For JPEG, WebP, AVIF; by default as the photo's."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="default, or a weights file.")] = "default",
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16; by default the faster.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Take the folders inside the folder too.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Photos of a folder worked on at once.")
    ] = 1,
    report: Annotated[
        Path | None, typer.Option(help="CSV file to add a line to for each photo.")
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
      regionnorm inpaint scan.tif --mask auto:scratches --preview found.png --save-mask mask.png
    """
    from regionnorm.inpainter import Inpainter, inpaint_path
    from regionnorm.mask_doctor import MaskOptions

    # Without a result to write there is nothing to load a network for.
    inpainter = (
        Inpainter(
            model,
            device=device,
            precision=precision,
            strategy=strategy,
            feather=feather,
            texture=texture,
        )
        if output is not None
        else _no_fill
    )
    with _quiet_decoders(), _progress("inpaint") as on_progress:
        outcome = inpaint_path(
            inpainter,
            image,
            mask,
            output,
            recursive=recursive,
            overwrite=overwrite,
            on_progress=on_progress,
            jobs=jobs,
            mask_options=MaskOptions(invert_mask, dilate, fit_mask),
            quality=quality,
            save_mask=save_mask,
            preview=preview,
            report=report,
        )
    for photo, line in outcome.warnings:
        _note(f"Warning: {photo}: {line}")
    for photo, reason in outcome.failed:
        _error(reason if str(photo) in reason else f"{photo}: {reason}")
    _print_done(outcome.done, len(outcome.skipped), output, image.is_dir())
    return 1 if outcome.failed else 0


def _no_fill(photo: Image.Image, hole: object) -> Image.Image:
    return photo


def _print_done(done: Sequence[Path], skipped: int, output: Path | None, folder: bool) -> None:
    if len(done) == 1 and not skipped:
        typer.echo(_printable(done[0]))
    elif done or skipped:
        there = f" ({skipped} were there already)" if skipped else ""
        typer.echo(f"{len(done)} photos in {_printable(output)}{there}")


def _print_recipes(value: bool) -> None:
    if value:
        from regionnorm.recipes import list_recipes

        for name, description in list_recipes().items():
            typer.echo(f"{name:<22} {description}")
        raise typer.Exit


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A name from `regionnorm train --list`, or a run's recipe.json to repeat.",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="PATH", help="Photo folder, list file, tar shard or quoted pattern; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    val: Annotated[
        str | None, typer.Option(metavar="PATH", help="Photos to judge by, not trained on.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the recipe; repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Devices on each machine.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Machines that train together.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Lightning's strategy, such as ddp.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed; by default the recipe's.")
    ] = None,
    _: Annotated[
        bool,
        typer.Option(
            "--list", callback=_print_recipes, is_eager=True, help="Print the recipes and stop."
        ),
    ] = False,
) -> int:
    """Train a network by a recipe.

    The resolved recipe, logs, sample pictures, checkpoints and weights go to the run's folder.
    Ctrl-C saves first; --resume goes on with the run's own recipe, changed by --set if given.

    \b
    Example:
      regionnorm train --list
      regionnorm train released --data photos/ --val val/ --out runs/first --set batch=8
      regionnorm train released --data photos/ --val val/ --out runs/first --resume
    """
    from regionnorm.recipes import get_recipe
    from regionnorm.training import train as run
    from regionnorm.training.recipe import recipe_from_json, with_overrides

    overrides = _settings(settings or [])
    launch = {"devices": devices, "nodes": nodes, "strategy": strategy, "precision": precision}
    overrides |= {key: str(value) for key, value in launch.items() if value is not None}
    # A resumed run goes on with its own recipe; what is typed now changes it on purpose.
    saved = out / "recipe.json"
    if resume and saved.is_file():
        chosen = with_overrides(recipe_from_json(saved.read_text(encoding="utf-8")), overrides)
        named = _read_recipe(recipe).name if recipe.endswith(".json") else recipe
        if chosen.name != named:
            raise ValueError(f"{out} was started with recipe {chosen.name!r}, not {named!r}")
    elif recipe.endswith(".json"):
        chosen = with_overrides(_read_recipe(recipe), overrides)
    else:
        chosen = get_recipe(recipe, overrides)
    finished = run(chosen, data=data, val=val, out=out, resume=resume)
    if finished is False:
        print("Interrupted and saved; to go on, add --resume to the command", file=sys.stderr)
        return 130
    return 0


@app.command()
def evaluate(
    data: Annotated[
        list[str],
        typer.Option(metavar="PATH", help="Photo folder, list file, tar shard or quoted pattern."),
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="default, a weights file, telea, ns or biharmonic; default+texture adds the "
            "texture pass.  [default: default ns telea]",
            show_default=False,
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks; by default a fixed set of generated ones.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.md and report.json.")
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
            help="Measure this too: feature_distance (VGG-19), lpips, fid, or none; repeatable. "
            "By default feature_distance if its weights are here ($REGIONNORM_VGG).",
        ),
    ] = None,
    device: Device = None,
) -> int:
    """Measure PSNR, SSIM, l1 and how alike the pictures look, by masked area.

    The feature distance compares activations of VGG-19; it is not LPIPS. LPIPS and FID come from
    torchmetrics and torchvision: pip install 'regionnorm[lpips]'.

    \b
    Example:
      regionnorm evaluate default ns telea --data photos/ --report out/report
      regionnorm evaluate runs/first/best.safetensors --data photos/ --masks masks/
    """
    from regionnorm.data import MaskFolder, open_source
    from regionnorm.devices import keep_freed_memory
    from regionnorm.evaluate import evaluate as run
    from regionnorm.evaluate import resolve_models
    from regionnorm.perceptual import FrechetDistance, available, make_metrics

    keep_freed_memory()  # an eighth of a network's time here, as batches are all of one size
    wanted = available() if metrics is None else [name for name in metrics if name != "none"]
    further = make_metrics(name for name in wanted if name != "fid")
    fillers = resolve_models(models or ["default", "ns", "telea"], device, jobs=os.cpu_count() or 1)
    with _progress("evaluate") as on_progress:
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
            on_progress=on_progress,
        )
    _print_table(result.to_table())
    for path in result.save(report) if report else ():
        typer.echo(path)
    for line in result.skipped:
        _error(line)
    return 1 if result.skipped else 0


def _print_studies(value: bool) -> None:
    if value:
        from regionnorm.studies import list_studies

        for name, title in list_studies().items():
            typer.echo(f"{name:<8} {title}")
        typer.echo(f"{'all':<8} All of these, one after the other.")
        typer.echo(f"{'report':<8} One page, HTML and Markdown, of all that has been run.")
        raise typer.Exit


@app.command()
def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A name from `regionnorm study --list`, all or report."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folder with scenes (train/ and val/, or Places2's data_256/ and val_256/), faces "
            "(faces/train and faces/val, or CelebA's img_align_celeba/) or both; repeatable.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all studies and their runs.")] = Path(
        "out/study"
    ),
    scale: Annotated[
        str, typer.Option(help="mini (minutes on two cores) or paper (the real thing).")
    ] = "mini",
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks to measure with; by default a fixed generated set."),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with scenes/ and faces/ to show in Figures 5, 7 and 8; by default "
            "validation photos.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs at the same time.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of all recipes; repeatable."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs with their cost, and do nothing.")
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Write the runs' recipe.json alone, to train elsewhere."),
    ] = False,
    _: Annotated[
        bool,
        typer.Option(
            "--list", callback=_print_studies, is_eager=True, help="Print the studies and stop."
        ),
    ] = False,
) -> None:
    """Repeat a table or figure of the paper, with its numbers beside ours.

    Runs that have been done are not done again, also between studies; a stopped study goes on
    where it was when the same command is given again.

    \b
    Example:
      regionnorm study --list
      regionnorm study table2 --data photos/ --out out/study
      regionnorm study table2 --scale paper --dry-run
      regionnorm study report --out out/study
    """
    from regionnorm import studies

    if name == "report":
        html, markdown, count = studies.write_report(out, studies.list_studies())
        typer.echo(f"{html}\n{markdown}\n{count} of {len(studies.list_studies())} studies")
        return
    names = list(studies.list_studies()) if name == "all" else [name]
    changes = _settings(settings or [])
    chosen = [studies.with_settings(studies.get_study(n, scale), changes) for n in names]
    found = studies.find_photos(data, out / "lists", masks) if data else None
    if dry_run:
        _print_study_table(studies.plan_table(chosen, found))
        return
    if found is None:
        raise ValueError("--data is missing: give the folder with train/, val/ and faces/")
    for study in chosen:
        if prepare:
            studies.Runner(out, study.scale, found).prepare(study.runs)
            typer.echo(f"{len(study.runs)} recipes in {out / 'runs'}")
            continue
        with _run_progress(len(study.runs)) as status:
            section = studies.conduct(study, found, out, jobs=jobs, shown=show, status=status)
        for table in section.tables:
            _print_study_table(table)
        typer.echo(out / study.name / "README.md")


@app.command()
def visualize(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photo.")],
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
        Path | None,
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
    invert_mask: Annotated[
        bool, typer.Option("--invert-mask", help="Black = hole instead of white.")
    ] = False,
    fit_mask: Annotated[
        bool, typer.Option("--fit-mask", help="Scale a mask of another size to the photo's.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="default, a weights file, or a training run's folder.")
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
    from regionnorm import visualize as visualizing
    from regionnorm.mask_doctor import MaskOptions

    if list_layers:
        with _quiet_decoders():
            sizes = visualizing.list_layers(image, model=model, device=device)
        _print_table(visualizing.layer_table(sizes))
        return
    if mask is None or output is None:
        raise ValueError("--mask and --output are needed; --list-layers does without")
    with _quiet_decoders():
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
        _note(f"Note: {line}")
    typer.echo(_printable(output))


@app.command()
def masks(
    count: Annotated[int, typer.Option(metavar="N", min=1, help="How many.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    interval: Annotated[
        str | None,
        typer.Option(
            metavar="LOW-HIGH",
            help="Hole's share of the area; by default 0-0.1 to 0.5-0.6 in turn.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(metavar="PX", min=16, help="Width and height.")] = 512,
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
    from regionnorm.data import write_masks

    area = None if interval is None else _interval(interval)
    with _progress("masks") as on_progress:
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


@app.command("app")
def app_(
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
    model: Annotated[str, typer.Option(help="default, or a weights file.")] = "default",
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16; by default the faster.")
    ] = None,
) -> None:
    """Serve a web page with a brush, and the same service for programs.

    Visitors' files stay in a temporary folder that is removed at the end. Ctrl-C stops the app.

    \b
    Example:
      regionnorm app
      regionnorm app --host 0.0.0.0 --port 8000 --password secret
    """
    from regionnorm.inpainter import Inpainter
    from regionnorm.web import AppOptions, serve

    options = AppOptions(host, port, password, max_megapixels, max_queue)
    inpainter = Inpainter(model, device=device, precision=precision)
    serve(inpainter, options, on_start=lambda url: typer.echo(f"Open {url} (Ctrl-C stops it)"))


@app.command()
def models() -> None:
    """List the networks: what they are, parameters, statistics.

    \b
    Example:
      regionnorm models
    """
    import torch
    from rich import box
    from rich.table import Table

    from regionnorm.models import create_model, describe_model, list_models

    table = Table("name", "parameters", "statistics", "description", box=box.SIMPLE)
    for name in list_models():
        with torch.device("meta"):  # counts without allocating or initialising
            model = create_model(name)
        count = sum(parameter.numel() for parameter in model.parameters())
        stats = {str(m.stats) for m in model.modules() if hasattr(m, "stats")}
        table.add_row(name, f"{count / 1e6:.1f} M", ", ".join(sorted(stats)), describe_model(name))
    _print_table(table)


@app.command()
def convert(
    released: Annotated[
        Path, typer.Argument(metavar="RELEASED", help="The .pth file of the paper's authors.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
) -> None:
    """Convert the weights that the paper's authors released.

    Their generator's weights become a file that inpaint, evaluate and Inpainter take; the network
    computes what theirs does.

    \b
    Example:
      regionnorm convert released.pth out.safetensors
      regionnorm inpaint photo.jpg --mask mask.png -o filled.png --model out.safetensors
    """
    from regionnorm.checkpoints import convert_released

    model = convert_released(released, output)
    count = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{output}: {model.name}, {count / 1e6:.1f} M parameters")


# --- reading what was typed ----------------------------------------------------------------------


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        raise ValueError(f"--interval is {text!r}; give LOW-HIGH, such as 0.2-0.3") from None
    return low, high


def _read_recipe(path: str) -> Recipe:
    from regionnorm.training.recipe import recipe_from_json

    try:
        return recipe_from_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"--set is {pair!r}; give KEY=VALUE, such as batch=8")
        settings[key.strip()] = value.strip()
    return settings


# --- what the terminal shows ---------------------------------------------------------------------


@contextmanager
def _progress(title: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr that leaves nothing behind and stays away from files and pipes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total, *_: bar.update(task, completed=done, total=total)


@contextmanager
def _run_progress(total: int) -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar over runs on stderr with a bar for each that is under way; plain lines in a file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    doing: dict[str, str] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        overall = bar.add_task("runs", total=total)

        def status(run: str, what: str, step: int, steps: int) -> None:
            if not console.is_terminal and doing.get(run) != what:
                print(f"{run}: {what}", file=sys.stderr, flush=True)
            finished = what == "done" and doing.get(run) != what
            doing[run] = what
            if run not in tasks and what != "done":
                tasks[run] = bar.add_task(run, total=steps)
            if run in tasks:
                bar.update(tasks[run], completed=step, description=f"{run}: {what}")
            if finished:
                bar.advance(overall)
                if run in tasks:
                    bar.remove_task(tasks[run])

        yield status


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Keep what decoders say about damaged files off stderr; every such file gets its one line.

    Pillow warns through Python; libtiff and OpenCV write to the process's descriptor 2 themselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            real = sys.stderr.fileno() == 2
        except (AttributeError, OSError, ValueError):  # replaced by something without one
            real = False
        if not real:
            yield
            return
        before = sys.stderr
        before.flush()
        kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        sys.stderr = os.fdopen(kept, "w", errors="backslashreplace", buffering=1)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            sys.stderr.close()
            sys.stderr = before


def _print_table(table: Table) -> None:
    from rich.console import Console

    # Files and pipes have no width; rich would assume 80 columns and cut long names.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print_study_table(table: Any) -> None:
    """Print a study's table; its cells may hold square brackets."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, title=Text(table.caption), title_justify="left")
    for i, heading in enumerate(table.header):
        shown.add_column(Text(heading), justify="left" if i == 0 else "right")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    _print_table(shown)


def _error(message: str) -> None:
    _note(f"Error: {message}")


def _note(message: str) -> None:
    # Plain print: rich would wrap the line, and a path in it.
    print(_printable(" ".join(message.splitlines())), file=sys.stderr)


def _printable(text: object) -> str:
    # Names of files need be no valid UTF-8, and may hold what moves a terminal's cursor.
    shown = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in shown)


def _fail(message: str) -> int:
    _error(message)
    return 2


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _usage_message(error: Any) -> str:
    text = " ".join(str(error.format_message()).split())
    command = error.ctx.command_path if getattr(error, "ctx", None) else "regionnorm"
    return f"{text} (see: {command} --help)"
