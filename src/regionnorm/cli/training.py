"""Train networks: ``train`` one, or all that a ``study`` of the paper compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from regionnorm.cli.console import print_note, print_study_table, printable, run_progress
from regionnorm.files.remote import Place, as_place, is_url

__all__ = ["study", "train"]

_T = TypeVar("_T")
_SCRATCHES = "scratches"  # the one recipe of a network that fills nothing


def _print_recipes(value: bool) -> None:
    if value:
        from regionnorm.recipes import list_recipes

        for name, description in list_recipes().items():
            typer.echo(f"{name:<22} {description}")
        raise typer.Exit


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
    out: Annotated[str, typer.Option(help="Folder of the run.")],
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
    overrides = _settings(settings or [])
    launch = {"devices": devices, "nodes": nodes, "strategy": strategy, "precision": precision}
    overrides |= {key: str(value) for key, value in launch.items() if value is not None}
    folder = as_place(out)
    if recipe == _SCRATCHES or _names_scratches(recipe):
        finished = _train_scratches(recipe, data, val, folder, overrides, resume=resume)
    else:
        finished = _train_filler(recipe, data, val, folder, overrides, resume=resume)
    if finished is False:
        print("Interrupted and saved; to go on, add --resume to the command", file=sys.stderr)
        return 130
    for name in ("best.safetensors", "weights.safetensors"):
        if (folder / name).is_file():
            typer.echo(printable(folder / name))
            break
    return 0


def _train_filler(
    recipe: str,
    data: list[str],
    val: str | None,
    folder: Place,
    overrides: dict[str, str],
    *,
    resume: bool,
) -> bool:
    from regionnorm.recipes import get_recipe
    from regionnorm.training import train as run
    from regionnorm.training.recipe import recipe_from_json, with_overrides

    # A resumed run goes on with its own recipe; what is typed now changes it on purpose.
    saved = folder / "recipe.json"
    if resume and saved.is_file():
        chosen = with_overrides(recipe_from_json(saved.read_text(encoding="utf-8")), overrides)
        named = _read_recipe(recipe, recipe_from_json).name if recipe.endswith(".json") else recipe
        if chosen.name != named:
            raise ValueError(f"{folder} was started with recipe {chosen.name!r}, not {named!r}")
    elif recipe.endswith(".json"):
        chosen = with_overrides(_read_recipe(recipe, recipe_from_json), overrides)
    else:
        chosen = get_recipe(recipe, overrides)
    return run(chosen, data=data, val=val, out=folder, resume=resume)


def _names_scratches(recipe: str) -> bool:
    """Whether a file is the recipe of a run for scratches."""
    if not recipe.endswith(".json"):
        return False
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(Path(recipe).read_text()).get("name") == _SCRATCHES)
    return False


def _train_scratches(
    recipe: str,
    data: list[str],
    val: str | None,
    folder: Place,
    overrides: dict[str, str],
    *,
    resume: bool,
) -> bool:
    from regionnorm.recipes import get_scratch_recipe
    from regionnorm.training.recipe import with_overrides
    from regionnorm.training.scratches import scratch_recipe_from_json, train_scratches

    if is_url(folder):
        raise ValueError(f"{folder} is not on this machine; give --out a folder here, and copy it")
    saved = folder / "recipe.json"
    if resume and saved.is_file():
        own = scratch_recipe_from_json(saved.read_text(encoding="utf-8"))
        chosen = with_overrides(own, overrides)
    elif recipe.endswith(".json"):
        chosen = with_overrides(_read_recipe(recipe, scratch_recipe_from_json), overrides)
    else:
        chosen = get_scratch_recipe(overrides)
    return train_scratches(chosen, data=data, val=val, out=str(folder), resume=resume)


def _print_studies(value: bool) -> None:
    if value:
        from regionnorm.studies import list_studies

        for name, title in list_studies().items():
            typer.echo(f"{name:<8} {title}")
        typer.echo(f"{'all':<8} All of these, one after the other.")
        typer.echo(f"{'status':<8} What is done, under way and left, and how long that takes here.")
        typer.echo(f"{'claims':<8} What the paper says in words, and what the runs say of it.")
        typer.echo(f"{'report':<8} One page, HTML and Markdown, of all that has been run.")
        raise typer.Exit


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name from `regionnorm study --list`, all, status, claims, report.",
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
        str,
        typer.Option(help="mini (minutes on two cores), small (ten hours) or paper."),
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
      regionnorm study status --scale small --out out/study
      regionnorm study report --out out/study
    """
    from regionnorm import studies

    if name == "claims":
        section = studies.claims_section(studies.get_scale(scale), out)
        section.save(out / name)
        for table in section.tables:
            print_study_table(table)
        return
    if name == "report":
        # The claims first: what the tables and figures below them are for.
        names = ["claims", *studies.list_studies()]
        html, markdown, count = studies.write_report(out, names)
        typer.echo(f"{html}\n{markdown}\n{count} of {len(names)} sections")
        return
    names = list(studies.list_studies()) if name in ("all", "status") else [name]
    changes = _settings(settings or [])
    chosen = [studies.with_settings(studies.get_study(n, scale), changes) for n in names]
    if name == "status":
        print_study_table(studies.status_table(chosen, out))
        return
    found = studies.find_photos(data, out / "lists", masks) if data else None
    if dry_run:
        print_study_table(studies.plan_table(chosen, found))
        return
    if found is None:
        raise ValueError("--data is missing: give the folder with train/, val/ and faces/")
    for study in chosen:
        missing = {run.photos for run in study.runs if found.lacks(run.photos)}
        if name == "all" and missing:
            print_note(f"Note: {study.name} is left out: no {' or '.join(missing)} under --data")
            continue
        if prepare:
            studies.Runner(out, study.scale, found).prepare(study.runs)
            typer.echo(f"{len(study.runs)} recipes in {out / 'runs'}")
            continue
        try:
            with run_progress(len(study.runs)) as status:
                section = studies.conduct(study, found, out, jobs=jobs, shown=show, status=status)
        except studies.MissingWeightsError as error:
            if name != "all":
                raise
            print_note(f"Note: {study.name} is left out: {error}")
            continue
        for table in section.tables:
            print_study_table(table)
        typer.echo(out / study.name / "README.md")


def _read_recipe(path: str, from_json: Callable[[str], _T]) -> _T:
    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
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
