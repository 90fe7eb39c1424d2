"""From a study to its section: train and measure what is missing, then draw and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from regionnorm._extras import require
from regionnorm.data import open_source
from regionnorm.masks import INTERVALS, MaskFolder
from regionnorm.measuring.parts import FolderMasks
from regionnorm.measuring.report import interval_label
from regionnorm.studies.cost import ASSUMED_TFLOPS, gpu_hours
from regionnorm.studies.figures import plot
from regionnorm.studies.photos import StudyData
from regionnorm.studies.pictures import Context, MissingWeightsError, draw_pictures
from regionnorm.studies.plan import Group, Run, Study
from regionnorm.studies.responses import response_table
from regionnorm.studies.results import Results
from regionnorm.studies.runner import Runner, Status
from regionnorm.studies.sections import SECTION, Figure, Section, Table
from regionnorm.studies.shift.section import shift_parts
from regionnorm.studies.tables import make_tables, network_table
from regionnorm.training.recipe import with_overrides

_WITH_RESPONSES = ("table2", "figure6", "figure7")
_WITH_PHOTOS = ("figure5", "figure7", "figure8")
_COMPARED = ("name", "model", "seed", "options.threshold")

__all__ = ["conduct", "plan_table", "with_settings"]


def conduct(
    study: Study,
    data: StudyData,
    out: Path,
    *,
    jobs: int = 1,
    shown: Path | None = None,
    status: Status = lambda run, doing, step, steps: None,
) -> Section:
    """Do what is left of a study, and write its tables and figures to ``out/STUDY``.

    Args:
        study: What to do.
        data: Photos and masks.
        out: Folder of all studies; their runs share ``out/runs``.
        jobs: Runs at once.
        shown: Folder with ``scenes/`` and ``faces/`` for Figures 5, 7 and 8; None takes
            validation photos.
        status: Told what happens.

    Returns:
        What the study found.

    Raises:
        ValueError: Photos are missing, or ``out`` holds a run with other settings.
        OSError: A run failed, or a file cannot be written.
        KeyboardInterrupt: Stopped; what was under way is saved.
    """
    _check_inputs(study, data, shown)
    runner = Runner(out, study.scale, data, jobs, status)
    runner.run_all(study.runs)
    results, folder = Results(runner.folder), out / study.name
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(study, runner.folder, data, folder, shown)
    tables: tuple[Table, ...] = make_tables(study, results)
    figures: tuple[Figure, ...] = plot(study, results, folder)
    facts = _facts(study, results)
    try:
        figures += draw_pictures(context)
        if study.name == "shift":
            more_tables, more_figures = shift_parts(context)
            tables, figures = tables + more_tables, figures + more_figures
    except MissingWeightsError:
        if shown is None and (kept := _kept(folder, facts)) is not None:
            return kept
        raise
    if study.name in _WITH_RESPONSES and (responses := response_table(context)):
        tables += (responses,)
    if study.groups:
        tables += (network_table(study.groups, results),)
    section = Section(study.name, study.title, facts, tables, figures)
    section.save(folder)
    return section


def _kept(folder: Path, facts: Sequence[str]) -> Section | None:
    """The section that stands there, if it is of these runs and whole."""
    if not (folder / SECTION).is_file():
        return None
    section = Section.load(folder)
    whole = all((folder / figure.file).is_file() for figure in section.figures)
    return section if whole and section.facts == tuple(facts) else None


def _check_inputs(study: Study, data: StudyData, shown: Path | None) -> None:
    """Notice before hours of training what would stop the study behind them."""
    require("matplotlib.figure", extra="study")
    if shown is not None and study.name in _WITH_PHOTOS:
        for kind in {run.photos for run in study.runs}:
            open_source(str(shown / kind))
    if data.masks is not None and study.runs:
        size = study.scale.size
        found = FolderMasks.measure(MaskFolder(data.masks), INTERVALS, size, count=1).intervals
        missing = [interval_label(interval) for interval in INTERVALS if interval not in found]
        if missing:
            raise ValueError(
                f"--masks {data.masks}: no mask has an area inside {', '.join(missing)}; studies "
                "measure in six intervals from 0 to 60 %"
            )


def with_settings(study: Study, settings: Mapping[str, str]) -> Study:
    """Change values of all recipes of a study, as ``regionnorm train --set`` does.

    Raises:
        ValueError: A field is not known, a value does not fit it, or it is what studies compare.
    """
    for key in settings:
        if key in _COMPARED:
            raise ValueError(f"--set {key}: that is what studies compare; choose another field")

    def changed(run: Run) -> Run:
        return replace(run, recipe=with_overrides(run.recipe, settings))

    groups = tuple(replace(group, runs=tuple(map(changed, group.runs))) for group in study.groups)
    return replace(study, groups=groups)


def plan_table(studies: Sequence[Study], data: StudyData | None = None) -> Table:
    """What studies would do: a row a run, each once, with an estimate of its GPU-hours.

    Args:
        studies: Of one scale.
        data: For the masks; None: not known yet.
    """
    runs = {run.name: run for study in studies for run in study.runs}
    hours = [gpu_hours(run) for run in runs.values()]
    rows = [_plan_row(run, cost) for run, cost in zip(runs.values(), hours, strict=True)]
    rows.append(("all", *[""] * 9, f"{sum(hours):.3g}"))
    scale = studies[0].scale
    if not runs:
        return Table(f"{scale.name} scale: no run of its own", ("run",), ())
    photos = "all" if scale.limit is None else str(scale.limit)
    masks = "generated masks of seed 0" if data is None or data.masks is None else data.masks
    caption = (
        f"{scale.name} scale; measured on {photos} validation photos at {scale.size} px in six "
        f"intervals of hole area, {masks}; GPU-hours if a GPU sustains {ASSUMED_TFLOPS:g} TFLOP/s"
    )
    header = "run,network,options,photos,px,batch,steps,lr,losses,masks,GPU-hours"
    return Table(caption, tuple(header.split(",")), tuple(rows))


def _plan_row(run: Run, hours: float) -> tuple[str, ...]:
    recipe = run.recipe
    losses = recipe.losses
    weights = {
        "l1": losses.l1,
        "adversarial": losses.adversarial,
        "perceptual": losses.perceptual,
        "style": losses.style,
        "edges": losses.edge_adversarial,
        "matching": losses.feature_matching,
        "tv": losses.total_variation,
    }
    options = " ".join(f"{key}={value}" for key, value in recipe.options.items())
    return (
        run.name,
        recipe.model,
        options or "its own",
        run.photos,
        str(recipe.size),
        str(recipe.batch),
        f"{recipe.steps:,}",
        f"{recipe.lr:g}",
        " ".join(f"{name} {value:g}" for name, value in weights.items() if value),
        recipe.masks,
        f"{hours:.2g}",
    )


def _facts(study: Study, results: Results) -> tuple[str, ...]:
    """How the numbers came about."""
    if not study.runs:
        return (f"{study.scale.name} scale; no run of its own: the package's weights",)
    found = [results.get(run.name) for run in study.runs]
    seeds = sorted({result.seed for result in found})
    steps = sorted({result.steps for result in found})
    minutes = sum(result.seconds for result in found) / 60
    first, recipe = found[0], study.runs[0].recipe
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    measured = {run.photos: results.get(run.name) for run in study.runs}
    photos = " and ".join(f"{result.photos} of {kind}" for kind, result in measured.items())
    skipped = sum(len(result.skipped) for result in found)
    return (
        f"{study.scale.name} scale: {len(found)} runs, seeds {_listed(seeds)}, "
        f"{_listed(steps)} steps of {recipe.batch} crops of {recipe.size} px; "
        f"{minutes:.0f} minutes in all",
        f"measured on validation photos, {photos}, at {first.data['size']} px, each in "
        f"{len(INTERVALS)} intervals; masks: {first.data['masks']}"
        + (f"; {skipped} photos could not be used" if skipped else ""),
        "± is the standard deviation over seeds",
        versions,
        f"recipes and results: runs/*/recipe.json, runs/*/result.json ({_names(study.groups)})",
    )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def _names(groups: Sequence[Group]) -> str:
    return ", ".join(dict.fromkeys(group.runs[0].name.rpartition("-")[0] for group in groups))
