"""Claims are judged by the runs' figures, and by nothing where there is no run."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from regionnorm.studies import claims_section, get_scale, get_study, status_table
from regionnorm.studies.claims import CLAIMS, judge
from regionnorm.studies.results import Result, spread

ALL = "all"


def put_results(out: Path, psnr: dict[str, float], seconds: float = 60.0) -> None:
    """Results of Table 3 with a PSNR for each row and a hundredth more for each seed."""
    for group in get_study("table3", "small").groups:
        if group.label not in psnr:
            continue
        for run in group.runs:
            seed = run.recipe.seed
            Result(
                run=run.name,
                seed=seed,
                steps=run.recipe.steps,
                seconds=seconds,
                photos=4,
                fills=24,
                scores={"psnr": {ALL: psnr[group.label] + seed / 100}},
                curve=((500, 18.0), (1000, 19.0)),
                recipe=asdict(run.recipe),
                data={},
                versions={},
                zeros={"a": 0.3, "b": 0.6},
                found={"a": ((500, 0.2), (1000, 0.7)), "b": ((500, 0.2), (1000, 0.3))},
            ).save(out / "runs" / run.name)


def verdicts(out: Path) -> dict[str, tuple[str, ...]]:
    (table,) = claims_section(get_scale("small"), out).tables
    return {claim.key: row for claim, row in zip(CLAIMS, table.rows, strict=True)}


def test_claims_without_runs_are_not_run(tmp_path: Path) -> None:
    assert {row[4] for row in verdicts(tmp_path).values()} == {"not run"}


def test_claims_are_judged_by_the_sign_of_all_seeds(tmp_path: Path) -> None:
    put_results(tmp_path, {"None": 21.0, "IN": 21.5, "BN": 21.49, "RN": 22.0})
    rows = verdicts(tmp_path)
    assert rows["rn-none"][2:5] == ("+1.00 ± 0.00 dB", "3", "agrees")
    assert rows["none-in"][2:5] == ("-0.50 ± 0.00 dB", "3", "does not")
    assert rows["in-bn"][4] == "open"
    assert rows["batch-rn"][4] == "not run"


def test_what_rn_l_finds_is_judged_by_its_layer_that_meets_the_hole_best(tmp_path: Path) -> None:
    (tmp_path / "figure6").mkdir()
    layers = [("a", 0.9, 0.4, 0.5, 0.35), ("b", 0.7, 0.6, 0.6, 0.35)]
    names = ("layer", "telling", "overlap", "best_overlap", "everything")
    kept = [
        {
            "group": "RN",
            "seed": seed,
            "hole": hole,
            "layers": [dict(zip(names, layer, strict=True)) for layer in layers],
        }
        for seed in (0, 1, 2)
        for hole in ("10-20 %", "30-40 %")
    ]
    for answer in kept[::2]:
        answer["layers"] = []
    (tmp_path / "figure6" / "responses.json").write_text(json.dumps(kept))
    rows = verdicts(tmp_path)
    assert rows["finds"][2:5] == ("+0.10 ± 0.00 over an overlap of 0.5", "3", "agrees")
    assert rows["finds-batch"][4] == "not run"


def test_the_shift_is_judged_by_what_its_study_kept_of_each_seed(tmp_path: Path) -> None:
    (tmp_path / "shift").mkdir()
    rest = {"middle": 0.0, "decoder": 0.0}
    kept = [
        {"network": name, "seed": seed, "encoder": shift + seed / 10} | rest
        for name, shift in (("IN", 0.5), ("RN", 0.0))
        for seed in (0, 1)
    ]
    file = tmp_path / "shift" / "seeds.json"
    file.write_text(json.dumps(kept))
    assert verdicts(tmp_path)["shift"][2:5] == ("+0.50 ± 0.00 deviations", "2", "agrees")
    file.write_text(json.dumps([row for row in kept if row != kept[-1]]))
    assert verdicts(tmp_path)["shift"][3] == "1"


def test_seeds_that_are_there_are_judged_while_others_run(tmp_path: Path) -> None:
    put_results(tmp_path, {"None": 21.0, "IN": 21.5, "RN": 22.0})
    (last,) = (tmp_path / "runs").glob("*-none-seed2")
    shutil.rmtree(last)
    rows = verdicts(tmp_path)
    assert rows["rn-none"][2:5] == ("+1.00 ± 0.00 dB", "2", "agrees")
    assert rows["rn-in"][3] == "3"


def test_reasons_stand_beside_their_claims(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "reasons.json").write_text(json.dumps({"gc": "too short"}))
    assert verdicts(tmp_path)["gc"][5] == "too short"


@pytest.mark.parametrize(
    ("key", "values", "verdict"),
    [
        ("rn-in", [0.3], "agrees"),
        ("rn-in", [0.1], "open, one seed"),
        ("rn-in", [0.3, -0.1], "open"),
        ("rn-in", [-0.3, -0.2], "does not"),
        ("deeper-2", [-0.3, -0.2], "agrees"),
        ("gc", [0.02], "agrees, one seed"),
        ("gc", [0.9, -0.9], "open"),
        ("gc", [0.1, -0.01], "agrees"),
        ("gc", [0.3, 0.4], "does not"),
        ("gc", [0.1, 0.08], "agrees"),
    ],
)
def test_verdicts(key: str, values: list[float], verdict: str) -> None:
    claim = next(claim for claim in CLAIMS if claim.key == key)
    assert judge(claim, spread(values)) == verdict


def test_every_claim_has_its_own_key_and_runs() -> None:
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    assert all(get_study(claim.study, "small").runs for claim in CLAIMS)


def test_status_counts_runs_and_tells_the_hours_that_are_left(tmp_path: Path) -> None:
    table = status_table([get_study("table3", "small")], tmp_path)
    assert table.rows[0] == ("table3", "15", "0", "0", "0", "15", "unknown")
    put_results(tmp_path, {"None": 21.0, "IN": 21.5, "BN": 21.49}, seconds=3600.0)
    log = tmp_path / "runs" / "scenes-rn-seed0" / "log.csv"
    log.parent.mkdir()
    log.write_text("step,name,value\n5000,images/s,70\n")
    row = status_table([get_study("table3", "small")], tmp_path).rows[-1]
    assert row[:6] == ("all, each run once", "15", "9", "0", "1", "5")
    assert 4 < float(row[6]) < 8  # five whole runs and a half, of about an hour each


def test_runs_of_another_scale_are_refused(tmp_path: Path) -> None:
    put_results(tmp_path, {"None": 21.0})
    for look in (
        lambda: claims_section(get_scale("mini"), tmp_path),
        lambda: status_table([get_study("table3", "mini")], tmp_path),
    ):
        with pytest.raises(ValueError, match="is a run of the small scale, not of mini"):
            look()


def test_what_the_encoder_brings_is_weighed_against_what_the_rest_adds(tmp_path: Path) -> None:
    psnr = {"baseline": 21.0, "Arch. 1": 21.3, "Arch. 5 (RN)": 21.8}
    for group in get_study("table2", "small").groups:
        for run in group.runs if group.label in psnr else ():
            scores = {"psnr": {ALL: psnr[group.label]}}
            shared = {"seconds": 1.0, "photos": 4, "fills": 24, "curve": (), "versions": {}}
            recipe = run.recipe
            Result(
                run=run.name,
                seed=recipe.seed,
                steps=recipe.steps,
                scores=scores,
                recipe=asdict(recipe),
                data={},
                **shared,
            ).save(tmp_path / "runs" / run.name)
    assert verdicts(tmp_path)["encoder"][2:5] == ("-0.20 ± 0.00 dB", "2", "does not")
