"""The studies are the paper's: its tables, its settings (section 4.1), its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regionnorm.models import create_model, list_models
from regionnorm.studies import get_study, list_studies, plan_table, with_settings
from regionnorm.studies.plan import Study, make_run, mini_scale, paper_scale
from regionnorm.studies.published import ALL, PUBLISHED

NAMES = (
    "shift table1 figure5 table2 table3 figure6 table4 figure7 table5 table6 figure8 figure9"
).split()


def test_every_table_and_figure_is_listed() -> None:
    assert list(list_studies()) == NAMES
    assert all(title for title in list_studies().values())


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_scale_is_the_papers(name: str) -> None:
    study = get_study(name, "paper")
    assert study.runs
    for run in study.runs:
        recipe = run.recipe
        assert (recipe.batch, recipe.size) == (14, 256)
        assert recipe.steps == (10_000 if name == "figure6" else 225_000)
        assert "width" not in recipe.options
        assert recipe.model in list_models()
        assert recipe.max_area == 0.6
    assert (study.scale.size, study.scale.limit) == (256, None)


@pytest.mark.parametrize("name", NAMES)
def test_the_mini_scale_has_two_seeds_and_narrow_networks(name: str) -> None:
    study = get_study(name, "mini")
    for run in study.runs:
        assert run.recipe.options["width"] == 16
        assert (run.recipe.size, run.recipe.batch) == (64, 4)
    if name.startswith("table") or name == "figure6":
        for group in study.groups:
            assert len({run.recipe.seed for run in group.runs}) >= 2


@pytest.mark.parametrize("scale", ["mini", "small", "paper"])
def test_no_network_trains_on_padded_crops(scale: str) -> None:
    """Statistics of each photo would be those of the padding, which larger pictures have not."""
    for name in NAMES:
        for run in get_study(name, scale).runs:
            network = create_model(run.recipe.model, **{**run.recipe.options, "width": 4})
            assert run.recipe.size % network.stride == 0, run.name


def test_both_scales_train_the_same_networks() -> None:
    for name in ("table1", "table2", "table3", "table4", "table5", "table6"):
        models = [
            [group.runs[0].recipe.model for group in get_study(name, scale).groups]
            for scale in ("mini", "paper")
        ]
        assert models[0] == models[1]


def test_the_papers_own_network_trains_with_all_four_losses() -> None:
    losses = get_study("table2", "paper").group("Arch. 5 (RN)").runs[0].recipe.losses
    assert min(losses.l1, losses.adversarial, losses.perceptual, losses.style) > 0


def test_arch_5_is_rn_and_studies_share_its_run() -> None:
    runs = [
        get_study(name).group(label).runs[0]
        for name, label in (
            ("table1", "RN"),
            ("table2", "Arch. 5 (RN)"),
            ("table3", "RN"),
            ("table4", "Places2, t = 0.8"),
            ("figure7", "t = 0.8"),
        )
    ]
    assert runs[0].name == "scenes-rn-seed0"
    assert all(run == runs[0] for run in runs)


def test_two_runs_of_one_name_never_differ() -> None:
    for scale in ("mini", "paper"):
        runs = {}
        for name in NAMES:
            for run in get_study(name, scale).runs:
                assert runs.setdefault(run.name, run) == run


def test_thresholds_reach_the_networks() -> None:
    study = get_study("table4")
    for group in study.groups:
        expected = float(group.label.rpartition(" ")[2])
        for run in group.runs:
            assert run.recipe.options.get("threshold", 0.8) == expected
            assert run.photos == ("faces" if group.label.startswith("CelebA") else "scenes")


def test_every_group_of_a_table_has_the_papers_number() -> None:
    for name, rows in PUBLISHED.items():
        groups = get_study(name).groups
        published = [group.label for group in groups if group.published]
        assert published == list(rows)
        further = [group for group in groups if not group.published]
        assert all(group.label.endswith(", batch statistics") for group in further)


@pytest.mark.parametrize("name", ["table2", "table3", "table6", "figure6"])
def test_rows_as_released_take_statistics_over_the_batch(name: str) -> None:
    groups = [group for group in get_study(name).groups if not group.published]
    assert groups
    for run in (run for group in groups for run in group.runs):
        assert run.recipe.options["stats"] == "batch"
        assert run.recipe.options["track_running_stats"] is True
        assert "-batch-seed" in run.name


def test_small_scale_trains_as_long_as_figure_6_and_judges_by_all_kinds_of_photos() -> None:
    study = get_study("figure6", "small")
    assert {run.recipe.steps for run in study.runs} == {10_000}
    assert study.runs == get_study("table3", "small").runs
    assert study.scale.spread
    assert study.scale.limit == 96


def test_published_numbers_hold_what_the_papers_text_says_of_them() -> None:
    table = PUBLISHED["table1"]

    def difference(metric: str) -> float:
        return table["RN"][metric][ALL] - table["baseline"][metric][ALL]

    # "improve PSNR by 0.73 dB and SSIM by 0.017, and reduce l1 loss (%) by 0.25 in the All case"
    assert difference("psnr") == pytest.approx(0.73)
    assert difference("ssim") == pytest.approx(0.017)
    assert difference("l1") == pytest.approx(-0.25)
    # "boost by 2.52 and 0.5 dB PSNR respectively"
    six = PUBLISHED["table6"]
    assert six["RN-CA"]["psnr"][ALL] - six["CA"]["psnr"][ALL] == pytest.approx(2.52)
    assert six["RN-PC"]["psnr"][ALL] - six["PC"]["psnr"][ALL] == pytest.approx(0.5)
    # The tables share columns.
    assert PUBLISHED["table2"]["baseline"] == PUBLISHED["table3"]["IN"]
    assert PUBLISHED["table2"]["Arch. 5 (RN)"] == PUBLISHED["table3"]["RN"]
    for short in ("CA", "PC", "GC"):
        assert all(six[short][m][ALL] == table[short][m][ALL] for m in ("psnr", "ssim", "l1"))


def test_first_seeds_come_first() -> None:
    seeds = [run.recipe.seed for run in get_study("table3").runs]
    assert seeds == sorted(seeds)


def test_figure_6_ends_after_ten_thousand_steps_and_mini_runs_are_table_3s() -> None:
    assert {run.recipe.steps for run in get_study("figure6", "paper").runs} == {10_000}
    assert get_study("figure6").runs == get_study("table3").runs
    long = make_run(paper_scale(), "rn", 0)
    short = make_run(paper_scale(), "rn", 0, steps=10_000)
    assert short.name != long.name
    assert replace(short.recipe, steps=long.recipe.steps, val_every=25_000) == long.recipe


def test_the_plan_counts_a_shared_run_once_and_adds_up() -> None:
    studies = [get_study("table2", "paper"), get_study("table3", "paper")]
    table = plan_table(studies)
    names = [row[0] for row in table.rows[:-1]]
    assert len(names) == len(set(names)) == 11  # 9 of Table 2 and two more norms
    hours = [float(row[-1]) for row in table.rows]
    assert hours[-1] == pytest.approx(sum(hours[:-1]), rel=0.05)
    assert "225,000" in table.rows[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_study_has_a_plan(name: str) -> None:
    # Narrow networks: what is counted is the same code at every width.
    study = get_study(name, "mini")
    table = plan_table([study])
    assert len(table.rows) == len(study.runs) + bool(study.runs)
    assert all(float(row[-1]) > 0 for row in table.rows)


def test_a_study_without_runs_says_so() -> None:
    assert "no run" in plan_table([get_study("figure9")]).caption


def test_settings_change_every_recipe() -> None:
    study = with_settings(get_study("table2"), {"steps": "7", "options.width": "4"})
    assert {run.recipe.steps for run in study.runs} == {7}
    assert {run.recipe.options["width"] for run in study.runs} == {4}


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="table2"):
        get_study("table7")
    with pytest.raises(ValueError, match="mini, small, paper"):
        get_study("table2", "huge")
    with pytest.raises(ValueError, match="no field 'stepps'"):
        with_settings(get_study("table2"), {"stepps": "7"})
    for key in ("seed", "model", "options.threshold"):
        with pytest.raises(ValueError, match="what studies compare"):
            with_settings(get_study("table2"), {key: "1"})


def test_a_scale_of_ones_own_works() -> None:
    scale = replace(mini_scale(), seeds=(5,), more_seeds=(5,))
    study: Study = get_study("table3", scale)
    assert {run.recipe.seed for run in study.runs} == {5}
