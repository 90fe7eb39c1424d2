"""The paper's tables and figures as studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regionnorm.studies.plan import (
    Group,
    PhotoKind,
    Scale,
    Study,
    make_run,
    mini_scale,
    paper_scale,
    small_scale,
)
from regionnorm.studies.published import PUBLISHED

__all__ = ["SCALES", "THRESHOLDS", "get_scale", "get_study", "list_studies"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
SCALES: dict[str, Callable[[], Scale]] = {
    "mini": mini_scale,
    "small": small_scale,
    "paper": paper_scale,
}

_COMPARED = {
    "CA": "contextual-attention",
    "PC": "partial-conv",
    "GC": "gated-conv",
    "EC": "edgeconnect",
    "baseline": "baseline-in",
    "RN": "rn",
}


def shift(scale: Scale) -> Study:
    """Figure 2, eq. 1-7: mean and variance shift by full-spatial normalisation, by hole area."""
    return _study("shift", scale, shift, _groups(scale, {"IN": "baseline-in", "RN": "rn"}))


def table1(scale: Scale) -> Study:
    """Table 1: RN, the baseline and four other methods on scenes, by hole area."""
    return _study(
        "table1",
        scale,
        table1,
        _groups(scale, _COMPARED, "table1", "baseline", seeds=scale.fewer_seeds),
    )


def figure5(scale: Scale) -> Study:
    """Figure 5: what the six methods paint, on scenes and faces."""
    first = scale.seeds[:1]
    scenes = _groups(scale, _COMPARED, seeds=first)
    faces = _groups(scale, _COMPARED, seeds=first, photos="faces")
    faces = [Group(f"{group.label}, faces", group.runs) for group in faces]
    return _study("figure5", scale, figure5, [*scenes, *faces])


def table2(scale: Scale) -> Study:
    """Table 2: where RN-B and RN-L are of use (Arch. 1 to 6)."""
    models = {"baseline": "baseline-in"}
    for number in range(1, 7):
        # rn is Arch. 5: one run under one name.
        models |= {"Arch. 5 (RN)": "rn"} if number == 5 else {f"Arch. {number}": f"rn-arch{number}"}
    groups = _groups(scale, models, "table2", "baseline")
    for label, model in (("Arch. 1", "rn-arch1"), ("Arch. 5", "rn")):
        groups.append(_as_released(scale, label, model, "baseline"))
    return _study("table2", scale, table2, groups)


def table3(scale: Scale) -> Study:
    """Table 3: no normalisation, IN, BN and RN in the same network."""
    return _study("table3", scale, table3, _norms(scale))


def figure6(scale: Scale) -> Study:
    """Figure 6: PSNR of no normalisation, IN, BN and RN over the first 10,000 iterations."""
    return _study("figure6", scale, figure6, _norms(scale, steps=scale.curve_steps))


def table4(scale: Scale) -> Study:
    """Table 4: the threshold t of RN-L from 0.5 to 0.9, on scenes and faces."""
    groups = []
    kinds: tuple[tuple[PhotoKind, str], ...] = (("scenes", "Places2"), ("faces", "CelebA"))
    for photos, named in kinds:
        for threshold in THRESHOLDS:
            label = f"{named}, t = {threshold}"
            runs = tuple(
                make_run(scale, "rn", seed, photos, threshold=threshold)
                for seed in scale.fewer_seeds
            )
            groups.append(
                Group(label, runs, PUBLISHED["table4"][label], reference=f"{named}, t = 0.8")
            )
    return _study("table4", scale, table4, groups)


def figure7(scale: Scale) -> Study:
    """Figure 7: the region that the first RN-L of residual block 6 finds at each threshold."""
    groups = [
        Group(f"t = {threshold}", (make_run(scale, "rn", scale.seeds[0], threshold=threshold),))
        for threshold in THRESHOLDS
    ]
    return _study("figure7", scale, figure7, groups)


def table5(scale: Scale) -> Study:
    """Table 5: l1 of RN and the baseline by hole area, on faces."""
    models = {"baseline": "baseline-in", "RN": "rn"}
    groups = _groups(scale, models, "table5", "baseline", photos="faces")
    return _study("table5", scale, table5, groups)


def table6(scale: Scale) -> Study:
    """Table 6: contextual attention, partial and gated convolution, with and without RN."""
    groups, seeds = [], scale.fewer_seeds
    for short in ("CA", "PC", "GC"):
        model = _COMPARED[short]
        models = {short: model, f"RN-{short}": f"rn-{model}"}
        groups += _groups(scale, models, "table6", short, seeds=seeds)
        groups.append(_as_released(scale, f"RN-{short}", f"rn-{model}", short, seeds=seeds))
    return _study("table6", scale, table6, groups)


def figure8(scale: Scale) -> Study:
    """Figure 8: response, region, gamma and beta of RN-L, and what the encoder makes."""
    return _study("figure8", scale, figure8, _own_run(scale))


def figure9(scale: Scale) -> Study:
    """Figure 9: object removal, face editing and restoration."""
    return _study("figure9", scale, figure9, _own_run(scale))


_STUDIES = (
    shift,
    table1,
    figure5,
    table2,
    table3,
    figure6,
    table4,
    figure7,
    table5,
    table6,
    figure8,
    figure9,
)


def list_studies() -> dict[str, str]:
    """Names of the studies with what each shows."""
    return {make.__name__: _title(make) for make in _STUDIES}


def get_study(name: str, scale: str | Scale = "mini") -> Study:
    """Make a study.

    Args:
        name: One of :func:`list_studies`.
        scale: ``"mini"``, ``"paper"``, or one of your own.

    Raises:
        ValueError: The name or the scale is not known.
    """
    makers = {make.__name__: make for make in _STUDIES}
    if name not in makers:
        raise ValueError(f"study {name!r} is not known; choose from {', '.join(makers)} or report")
    return makers[name](get_scale(scale) if isinstance(scale, str) else scale)


def get_scale(name: str) -> Scale:
    """Make a scale: ``"mini"``, ``"small"`` or ``"paper"``.

    Raises:
        ValueError: The name is not known.
    """
    if name not in SCALES:
        raise ValueError(f"scale {name!r} is not known; choose from {', '.join(SCALES)}")
    return SCALES[name]()


def _study(
    name: str, scale: Scale, make: Callable[[Scale], Study], groups: Sequence[Group]
) -> Study:
    return Study(name, _title(make), tuple(groups), scale)


def _title(make: Callable[[Scale], Study]) -> str:
    return (make.__doc__ or "").strip()


def _groups(
    scale: Scale,
    models: dict[str, str],
    table: str = "",
    reference: str = "",
    *,
    photos: PhotoKind = "scenes",
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
) -> list[Group]:
    published = PUBLISHED.get(table, {})
    return [
        Group(
            label,
            tuple(
                make_run(scale, model, seed, photos, steps=steps)
                for seed in (scale.seeds if seeds is None else seeds)
            ),
            published.get(label, {}),
            reference,
        )
        for label, model in models.items()
    ]


def _norms(scale: Scale, steps: int | None = None) -> list[Group]:
    models = {"None": "baseline-none", "IN": "baseline-in", "BN": "baseline-bn", "RN": "rn"}
    groups = _groups(scale, models, "table3", "IN", seeds=scale.more_seeds, steps=steps)
    return [*groups, _as_released(scale, "RN", "rn", "IN", seeds=scale.more_seeds, steps=steps)]


def _as_released(
    scale: Scale,
    label: str,
    model: str,
    reference: str,
    *,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
) -> Group:
    """A row beside the paper's: statistics over the batch, as the released code takes them."""
    runs = tuple(
        make_run(scale, model, seed, steps=steps, as_released=True)
        for seed in (scale.seeds if seeds is None else seeds)
    )
    return Group(f"{label}, batch statistics", runs, {}, reference)


def _own_run(scale: Scale) -> list[Group]:
    """The paper's network, unless the scale's figures show other weights."""
    if scale.weights is not None:
        return []
    return _groups(scale, {"RN": "rn"}, seeds=scale.seeds[:1])
