"""What the paper says in words, each sentence with what our runs have to say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from regionnorm.studies.catalogue import get_study
from regionnorm.studies.plan import Scale
from regionnorm.studies.published import ALL
from regionnorm.studies.responses import WIDE, read_answers
from regionnorm.studies.results import Results, Spread, spread
from regionnorm.studies.sections import Section, Table
from regionnorm.studies.shift.result import SEEDS, read_seeds
from regionnorm.studies.status import check_scale

__all__ = ["CLAIMS", "Claim", "Evidence", "claims_section", "judge"]

NAME = "claims"
_REASONS = "reasons.json"
_FOUND = 0.5  # overlap of a region and a hole from which it counts as found
_LEAST = 0.05  # dB; smaller differences are called none
_SEEDS_DIFFER = 0.2  # dB, between seeds of one network


@dataclass(frozen=True)
class Evidence:
    """Our runs' figure for a claim.

    Attributes:
        values: One for each seed; its unit is the claim's.
        unit: ``"dB"``, ``"%"``, another word, or empty.
    """

    values: Spread
    unit: str = "dB"

    def show(self) -> str:
        """``"+0.24 ± 0.12 dB"``."""
        text = self.values.show(2)
        sign = "" if text.startswith("-") else "+"
        return f"{sign}{text} {self.unit}".strip()


Measure = Callable[[Scale, Results], Evidence]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that runs can test.

    Attributes:
        key: Short name, for the reasons file.
        text: What is claimed.
        paper: The paper's own figure, in words.
        expected: Sign that the figure has if the claim holds: 1, -1, or 0 for about nothing.
        study: Whose runs it needs.
        measure: Gets the figure; raises ``FileNotFoundError`` while a run is missing.
    """

    key: str
    text: str
    paper: str
    expected: int
    study: str
    measure: Measure


def judge(claim: Claim, values: Spread) -> str:
    """``"agrees"``, ``"does not"`` or ``"open"``.

    A difference counts where all seeds have its sign and the mean is beyond 0.05; one seed alone
    has to be beyond 0.2, about what seeds differ by. Next to nothing is within 0.2 with every seed.
    """
    small = all(abs(value) < _SEEDS_DIFFER for value in values.values)
    if small and len(values.values) == 1:
        return "agrees, one seed" if claim.expected == 0 else "open, one seed"
    signs = {1 if value > 0 else -1 for value in values.values}
    if claim.expected == 0:
        beyond = len(signs) == 1 and abs(values.mean) >= _SEEDS_DIFFER
        return "agrees" if small else "does not" if beyond else "open"
    if abs(values.mean) < _LEAST or len(signs) > 1:
        return "open"
    return "agrees" if signs == {claim.expected} else "does not"


def claims_section(scale: Scale, out: Path) -> Section:
    """All claims with what the runs under ``out/runs`` say of them; reasons from a file beside.

    Args:
        scale: Of the runs.
        out: The studies' folder; ``out/claims/reasons.json`` may give a likely reason for each
            claim that does not hold, by its key.

    Raises:
        ValueError: The runs are of another scale.
    """
    check_scale(scale, out)
    path = out / NAME / _REASONS
    reasons = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results, rows = Results(out / "runs"), []
    for claim in CLAIMS:
        evidence = _measured(claim, scale, results)
        if evidence is None:
            rows.append((claim.text, claim.paper, "", "", "not run", reasons.get(claim.key, "")))
            continue
        seeds = str(len(evidence.values.values))
        verdict = judge(claim, evidence.values)
        reason = reasons.get(claim.key, "")
        rows.append((claim.text, claim.paper, evidence.show(), seeds, verdict, reason))
    header = ("claim", "paper", "ours", "seeds", "verdict", "likeliest reason, remarks")
    caption = f"{scale.name} scale; differences of PSNR over all holes unless said otherwise"
    facts = (
        "± is the standard deviation over seeds, of differences seed by seed",
        "a difference counts where all seeds have its sign and its mean is beyond 0.05; one seed "
        "alone has to be beyond 0.2; next to nothing is within 0.2 with every seed",
    )
    title = "What the paper says, and what the runs say of it"
    return Section(NAME, title, facts, (Table(caption, header, tuple(rows)),))


def _measured(claim: Claim, scale: Scale, results: Results) -> Evidence | None:
    """By as many of the first seeds as have all runs that the claim needs; None without any."""
    for count in range(len(scale.more_seeds), 0, -1):
        fewer = replace(
            scale,
            seeds=scale.seeds[:count],
            more_seeds=scale.more_seeds[:count],
            fewer_seeds=scale.fewer_seeds[:count],
        )
        with suppress(FileNotFoundError):
            return claim.measure(fewer, results)
    return None


# --- how figures come about ----------------------------------------------------------------------


def _difference(
    study: str, label: str, reference: str, metric: str = "psnr", interval: str = ALL
) -> Measure:
    def measure(scale: Scale, results: Results) -> Evidence:
        found = get_study(study, scale)
        values = results.differences(found.group(label), found.group(reference), metric, interval)
        return Evidence(values, "dB" if metric == "psnr" else "%")

    return measure


def _best(study: str, label: str, prefix: str = "") -> Measure:
    """A group's PSNR minus the best of the other groups' of the paper."""

    def measure(scale: Scale, results: Results) -> Evidence:
        found = get_study(study, scale)
        others = [
            group
            for group in found.groups
            if group.published and group.label != label and group.label.startswith(prefix)
        ]
        best = max(others, key=lambda group: results.score(group, "psnr", ALL).mean)
        return Evidence(results.differences(found.group(label), best, "psnr", ALL))

    return measure


def _encoder_alone(scale: Scale, results: Results) -> Evidence:
    """What RN-B in the encoder brings minus what all that is behind it adds to that."""
    study = get_study("table2", scale)
    base, first, whole = map(study.group, ("baseline", "Arch. 1", "Arch. 5 (RN)"))
    gains = results.differences(first, base, "psnr", ALL).values
    rests = results.differences(whole, first, "psnr", ALL).values
    return Evidence(spread([gain - rest for gain, rest in zip(gains, rests, strict=True)]))


def _growth(scale: Scale, results: Results) -> Evidence:
    """How much more l1 RN saves in holes of 40 to 50 % than in those of 10 to 20 %."""
    study = get_study("table5", scale)
    rn, base = study.group("RN"), study.group("baseline")
    large, small = (
        results.differences(rn, base, "l1", interval).values for interval in ("40-50 %", "10-20 %")
    )
    return Evidence(spread([s - b for b, s in zip(large, small, strict=True)]), "points of l1")


def _finds_the_hole(label: str) -> Measure:
    """Overlap of the hole and the region of the layer that meets it best, above one half.

    In holes of 30 to 40 % of photos of the paper's size, each layer by its own threshold. Half is
    what detection calls found; a region of everything overlaps such a hole by a third.
    """

    def measure(scale: Scale, results: Results) -> Evidence:
        found = {
            answer.seed: max(layer.overlap for layer in answer.layers)
            for answer in read_answers(results.folder.parent / "figure6")
            if answer.group == label and answer.hole == WIDE
        }
        if not set(scale.more_seeds) <= set(found):
            raise FileNotFoundError(f"{label}: no regions of seeds {scale.more_seeds}")
        values = [found[seed] - _FOUND for seed in scale.more_seeds]
        return Evidence(spread(values), f"over an overlap of {_FOUND}")

    return measure


def _shift(scale: Scale, results: Results) -> Evidence:
    """|Mean| of the known pixels in IN's encoder minus that in RN's, holes of 50 to 60 %."""
    folder = results.folder.parent / "shift"
    kept = {
        key: shift
        for key, parts in read_seeds(folder).items()
        if (shift := parts["encoder"]) is not None
    }
    pairs = [(("IN", seed), ("RN", seed)) for seed in scale.seeds]
    if not all(key in kept for pair in pairs for key in pair):
        raise FileNotFoundError(f"{folder / SEEDS} lacks seeds of {scale.seeds}")
    return Evidence(
        spread([kept[full] - kept[by_region] for full, by_region in pairs]), "deviations"
    )


def _claims() -> Sequence[Claim]:
    t2, t3 = "table2", "table3"
    deeper = "RN-B in the residual blocks harms"
    return (
        Claim("rn-none", "RN > no norm", "+0.63", 1, t3, _difference(t3, "RN", "None")),
        Claim("none-in", "no norm > IN", "+0.10", 1, t3, _difference(t3, "None", "IN")),
        Claim("in-bn", "IN > BN", "+0.13", 1, t3, _difference(t3, "IN", "BN")),
        Claim("rn-in", "RN > IN", "+0.73", 1, t3, _difference(t3, "RN", "IN")),
        Claim(
            "batch-rn",
            "statistics over the batch, as the released code has them, are no worse than per photo",
            "not compared",
            1,
            t3,
            _difference(t3, "RN, batch statistics", "RN"),
        ),
        Claim(
            "batch-bn",
            "RN as released > BN",
            "+0.86",
            1,
            t3,
            _difference(t3, "RN, batch statistics", "BN"),
        ),
        Claim(
            "encoder",
            "RN-B in the encoder alone brings more than all that is behind it",
            "+0.51 - 0.22",
            1,
            t2,
            _encoder_alone,
        ),
        Claim(
            "later",
            "RN-L behind the encoder adds to it",
            "+0.22",
            1,
            t2,
            _difference(t2, "Arch. 5 (RN)", "Arch. 1"),
        ),
        Claim(
            "later-batch",
            "RN-L behind the encoder adds to it, as released",
            "+0.22",
            1,
            t2,
            _difference(t2, "Arch. 5, batch statistics", "Arch. 1, batch statistics"),
        ),
        Claim("deeper-2", deeper, "-0.47", -1, t2, _difference(t2, "Arch. 2", "Arch. 1")),
        Claim(
            "deeper-3",
            "RN-B everywhere harms",
            "-0.29",
            -1,
            t2,
            _difference(t2, "Arch. 3", "Arch. 1"),
        ),
        Claim("arch-5", "Arch. 5 is the best", "+0.08", 1, t2, _best(t2, "Arch. 5 (RN)")),
        Claim(
            "arch-6",
            "RN-L in the encoder loses the gain",
            "-0.57",
            -1,
            t2,
            _difference(t2, "Arch. 6", "Arch. 5 (RN)"),
        ),
        Claim(
            "threshold",
            "t = 0.8 is best, scenes",
            "+0.14",
            1,
            "table4",
            _best("table4", "Places2, t = 0.8", "Places2"),
        ),
        Claim(
            "threshold-faces",
            "t = 0.8 is best, faces",
            "+0.06",
            1,
            "table4",
            _best("table4", "CelebA, t = 0.8", "CelebA"),
        ),
        Claim("growth", "the gain (l1, faces) grows with the hole", "+0.17", 1, "table5", _growth),
        Claim("ca", "RN helps CA", "+2.52", 1, "table6", _difference("table6", "RN-CA", "CA")),
        Claim("pc", "RN helps PC", "+0.50", 1, "table6", _difference("table6", "RN-PC", "PC")),
        Claim(
            "gc",
            "RN changes GC by next to nothing",
            "+0.02",
            0,
            "table6",
            _difference("table6", "RN-GC", "GC"),
        ),
        Claim(
            "finds",
            "an RN-L finds wide holes, per photo",
            "pictures",
            1,
            "figure6",
            _finds_the_hole("RN"),
        ),
        Claim(
            "finds-batch",
            "an RN-L finds wide holes, as released",
            "pictures",
            1,
            "figure6",
            _finds_the_hole("RN, batch statistics"),
        ),
        Claim(
            "shift",
            "normalising hole and known pixels together shifts the latter's mean, in the encoder",
            "eq. 5, in words",
            1,
            "shift",
            _shift,
        ),
    )


CLAIMS = _claims()
