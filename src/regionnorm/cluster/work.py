"""What workers do: fill photos as :func:`inpaint_path` does, measure as :func:`evaluate` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

from regionnorm.cluster.workers import Cluster
from regionnorm.files.pairing import Identity, Job, find_result, identity
from regionnorm.files.remote import Place, RemotePath
from regionnorm.filling.batch import Fill, Outcome, Settings, Work, attempt
from regionnorm.measuring.evaluate import Filler
from regionnorm.measuring.evaluate import Work as EvaluationWork
from regionnorm.measuring.parts import Part, Setup, measure_part
from regionnorm.measuring.perceptual import PairMetric

__all__ = ["evaluating", "filling"]

_Paired: TypeAlias = tuple[int, Job, "str | Place | None"]


def filling(cluster: Cluster, make_inpainter: Callable[[], Fill]) -> Work:
    """What :func:`~regionnorm.filling.batch.inpaint_path` takes as ``work``.

    Photos whose result is there, and those without a mask, are told by this process; the others
    are read, filled and written by workers. A photo whose worker died is done again by another,
    whatever the first one left behind.

    Args:
        cluster: Where the workers are.
        make_inpainter: Makes what fills holes, on each worker once.
    """

    def work(plan: Sequence[Job], settings: Settings, jobs: int) -> Iterator[Outcome]:
        tasks: list[_Paired] = []
        for number, job in enumerate(plan):
            masks = _masks(job, settings)
            if masks:
                tasks.append((number, job, masks[0]))
            else:
                yield attempt(job, settings)
        make = _Filling(make_inpainter, _for_workers(settings, [job for _, job, _ in tasks]))
        for (number, job, _), outcome in cluster.each(make, tasks):
            if outcome is None:
                message = "the workers that tried to fill it died; it may need more memory"
                outcome = Outcome(job, message=message)
            outcome.job = plan[number]  # the plan's own, not the copy that has travelled
            yield outcome

    return work


def evaluating(
    cluster: Cluster,
    make_models: Callable[[], Mapping[str, Filler]],
    make_further: Callable[[], Mapping[str, PairMetric]],
) -> EvaluationWork:
    """What :func:`~regionnorm.measuring.evaluate.evaluate` takes as ``work``.

    Args:
        cluster: Where the workers are.
        make_models: Makes the models, on each worker once.
        make_further: Makes the further measures.
    """

    def work(setup: Setup, ranges: Sequence[range]) -> Iterator[tuple[int, Part]]:
        make = _Measuring(make_models, make_further, setup)
        for (number, photos), part in cluster.each(make, enumerate(ranges)):
            if part is None:
                first = setup.source.name(photos[0])
                raise OSError(f"the workers that measured {first} and the photos after it died")
            yield number, part

    return work


@dataclass(frozen=True)
class _Filling:
    make_inpainter: Callable[[], Fill]
    settings: Settings

    def __call__(self) -> Callable[[_Paired, bool], Outcome]:
        settings = replace(self.settings, inpainter=self.make_inpainter())

        def work(task: _Paired, again: bool) -> Outcome:
            _, job, mask = task
            # Of a folder only photos without a result come here: one that is there by now is
            # from the worker that died.
            overwrite = settings.overwrite or (again and settings.folder)
            return attempt(job, replace(settings, find_mask=lambda _: mask, overwrite=overwrite))

        return work


@dataclass(frozen=True)
class _Measuring:
    make_models: Callable[[], Mapping[str, Filler]]
    make_further: Callable[[], Mapping[str, PairMetric]]
    setup: Setup

    def __call__(self) -> Callable[[tuple[int, range], bool], Part]:
        models, further = self.make_models(), self.make_further()

        def work(task: tuple[int, range], again: bool) -> Part:
            return measure_part(self.setup, models, further, task[1])

        return work


def _masks(job: Job, settings: Settings) -> list[str | Place | None]:
    """A photo's mask, which may be None; none at all if there is nothing to fill, or none found."""
    skip = settings.folder and not settings.overwrite
    if skip and find_result(job, settings.inputs, settings.there) is not None:
        return []
    try:
        return [settings.find_mask(job)]
    except (OSError, ValueError):
        return []


def _for_workers(settings: Settings, jobs: Iterable[Job]) -> Settings:
    """The settings without what each worker would hold for a million photos."""
    return replace(
        settings,
        inpainter=_nothing,
        find_mask=_nothing,
        inputs=_at_risk(settings, jobs),
        there=frozenset(),
    )


def _nothing(*_: object) -> NoReturn:
    raise AssertionError


def _at_risk(settings: Settings, jobs: Iterable[Job]) -> frozenset[Identity]:
    """Those of the photos and masks that results would replace."""
    found = set()
    for job in jobs:
        places = [job.target, *_extras(job, settings)]
        if job.target is not None:
            places.append(job.target.with_name(f"{job.target.name}.png"))
        for place in places:
            if place is not None and (isinstance(place, RemotePath) or os.path.exists(place)):
                found.add(identity(place))
    return frozenset(found & settings.inputs)


def _extras(job: Job, settings: Settings) -> list[Place]:
    places = [place for place in (settings.save_mask, settings.preview) if place is not None]
    if not settings.folder:
        return places
    return [place / job.saved for place in places]
