"""What a hole does to the known pixels at each layer is measured as section 3.1 says."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch
from torch import Tensor, nn

from regionnorm.models import create_model
from regionnorm.studies.shift.measure import (
    PHOTO,
    ShiftCell,
    ShiftResult,
    draw_shift,
    measure_shift,
    shift_tables,
)

AREAS = ((0.1, 0.2), (0.3, 0.4))
SIDE = 32


def make_masks(batch: int = 2) -> dict[tuple[float, float], Tensor]:
    """Squares of 12 and 18 pixels, one place each."""
    masks = {}
    for area, side in zip(AREAS, (12, 18), strict=True):
        mask = torch.zeros(batch, 1, SIDE, SIDE)
        for index in range(batch):
            start = 4 + 4 * index
            mask[index, :, start : start + side, start : start + side] = 1
        masks[area] = mask
    return masks


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Smooth and darker than white, as photos are."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 8, 8, generator=generator) * 0.7
    return nn.functional.interpolate(coarse, size=SIDE, mode="bilinear")


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        options = {"width": 4, "blocks": 1}
        return {
            "IN": create_model("baseline-in", **options),
            "RN": create_model("rn", threshold=0.5, **options),
        }


@pytest.fixture(scope="module")
def result(models: dict[str, nn.Module], photos: Tensor) -> ShiftResult:
    return measure_shift(models, photos, make_masks())


def inputs_of(model: nn.Module, image: Tensor, mask: Tensor, kind: type) -> list[Tensor]:
    """What the layers of a kind are given, by hooks of the test's own, in float64."""
    found: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, kind)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: found.append(args[0].double()))
        for layer in layers
    ]
    with torch.no_grad():
        model.eval()(image, mask)
    for hook in hooks:
        hook.remove()
    return found


def by_channel(features: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Known pixels and hole of every channel of every picture."""
    hole = nn.functional.interpolate(mask, size=features.shape[-2:])[:, 0] > 0.5
    return [
        (channel[~inside], channel[inside])
        for picture, inside in zip(features, hole, strict=True)
        for channel in picture
    ]


def test_a_white_hole_shifts_the_known_pixels_of_a_photo_as_equations_2_to_5_say(
    result: ShiftResult, photos: Tensor
) -> None:
    for interval, mask in make_masks().items():
        (cell,) = result.of(PHOTO, interval)
        shifts, spreads = [], []
        for known, _ in by_channel(photos.double(), mask):
            share = float(mask[0].mean())
            mean = (1 - share) * known.mean() + share * 1.0
            variance = (1 - share) * known.var(correction=0)
            variance += share * (1 - share) * (known.mean() - 1.0) ** 2
            shifts.append(abs(known.mean() - mean) / (variance + 1e-5).sqrt())
            spreads.append((known.var(correction=0) / (variance + 1e-5)).sqrt())
        assert cell.shift == pytest.approx(float(torch.stack(shifts).mean()), rel=1e-4)
        assert cell.spread == pytest.approx(float(torch.stack(spreads).mean()), rel=1e-4)
        assert cell.area == pytest.approx(float(mask.mean()))
        for error in (cell.mean_error, cell.variance_error, cell.total_variance_error):
            assert error == pytest.approx(0, abs=1e-5)


def test_numbers_at_instance_norm_are_those_of_float64_loops(
    result: ShiftResult, models: dict[str, nn.Module], photos: Tensor
) -> None:
    interval, mask = list(make_masks().items())[1]
    cells = result.of("IN", interval)
    given = inputs_of(models["IN"], photos, mask, nn.InstanceNorm2d)
    whole = inputs_of(models["IN"], photos, torch.zeros_like(mask), nn.InstanceNorm2d)
    assert len(cells) == len(given) == 7
    for cell, features, without in zip(cells, given, whole, strict=True):
        expected: dict[str, list[float]] = {}
        clean = [torch.cat(parts) for parts in by_channel(without, mask)]
        known_clean = [known for known, _ in by_channel(without, mask)]
        for (known, hole), all_clean, sample in zip(
            by_channel(features, mask), clean, known_clean, strict=True
        ):
            everything = torch.cat((known, hole))
            variance = everything.var(correction=0)
            deviation, clean_deviation = variance.sqrt(), all_clean.std(correction=0)
            lost = len(hole) / len(everything) * hole.var(correction=0)
            values = {
                "shift": abs(known.mean() - everything.mean()) / (variance + 1e-5).sqrt(),
                "spread": known.std(correction=0) / (variance + 1e-5).sqrt(),
                "full_shift": abs(known.mean() - everything.mean()) / deviation,
                "variance_error": lost / variance,
                "known_mean_error": abs(known.mean() - all_clean.mean()) / clean_deviation,
                "known_deviation_error": abs(known.std(correction=0) / clean_deviation - 1),
                "sampling_mean_error": abs(sample.mean() - all_clean.mean()) / clean_deviation,
            }
            for name, value in values.items():
                expected.setdefault(name, []).append(float(value))
        for name, values_of_all in expected.items():
            mean = sum(values_of_all) / len(values_of_all)
            assert getattr(cell, name) == pytest.approx(mean, rel=3e-4, abs=1e-6), name
        assert cell.total_variance_error == pytest.approx(0, abs=1e-4)
        assert cell.mean_error == pytest.approx(0, abs=1e-4)


def test_rn_b_leaves_no_shift_where_instance_norm_would(result: ShiftResult) -> None:
    encoder = result.of("RN", part="encoder")
    assert {cell.kind for cell in encoder} == {"rn-b"}
    for cell in encoder:
        assert cell.shift == pytest.approx(0, abs=1e-5)
        assert cell.spread == pytest.approx(1, abs=1e-2)
        assert cell.full_shift is not None
        assert cell.full_shift > 0.01


def test_shift_of_instance_norm_is_that_of_all_pixels(result: ShiftResult) -> None:
    for cell in result.of("IN"):
        assert cell.shift == pytest.approx(cell.full_shift, rel=1e-2)
        assert cell.spread == pytest.approx(cell.full_spread, rel=1e-2)


def test_share_that_relu_cuts_is_counted_among_the_known_outputs(
    result: ShiftResult, models: dict[str, nn.Module], photos: Tensor
) -> None:
    interval, mask = next(iter(make_masks().items()))
    layers = [m for m in models["IN"].modules() if isinstance(m, nn.InstanceNorm2d)]
    given = inputs_of(models["IN"], photos, mask, nn.InstanceNorm2d)
    for cell, features, layer in zip(result.of("IN", interval), given, layers, strict=True):
        with torch.no_grad():
            output = layer(features.float()).double()
        cut = [(known <= 0).double().mean() for known, _ in by_channel(output, mask)]
        assert cell.cut == pytest.approx(float(torch.stack(cut).mean()), abs=1e-3)
    relus = [cell.relu for cell in result.of("IN", interval)]
    assert relus == [True, True, True, True, False, True, True]


def test_without_a_hole_nothing_shifts(models: dict[str, nn.Module], photos: Tensor) -> None:
    empty = {(0.0, 0.1): torch.zeros(2, 1, SIDE, SIDE)}
    for cell in measure_shift({"IN": models["IN"]}, photos, empty).cells:
        assert cell.area == 0
        assert cell.shift == pytest.approx(0, abs=1e-5)
        assert cell.known_mean_error == pytest.approx(0, abs=1e-5)
        assert cell.total_variance_error == pytest.approx(0, abs=1e-4)
        assert cell.cut == cell.cut_without_hole


def test_larger_holes_shift_more(result: ShiftResult) -> None:
    small, large = (result.of(PHOTO, interval)[0] for interval in AREAS)
    assert small.shift is not None and large.shift is not None
    assert small.shift < large.shift


def test_layers_without_known_pixels_have_no_values(photos: Tensor) -> None:
    model = create_model("partial-conv", width=4, levels=4)
    mask = torch.ones(2, 1, SIDE, SIDE)
    mask[..., 1, 1] = 0
    cells = measure_shift({"PC": model}, photos, {(0.9, 1.0): mask}).of("PC")
    assert any(cell.shift is None for cell in cells)
    for cell in cells:
        assert all(value is None or value == value for value in vars(cell).values())


def test_result_survives_json(result: ShiftResult) -> None:
    text = json.dumps(result.to_json(), allow_nan=False)
    assert ShiftResult.from_json(json.loads(text)) == result
    for wrong in ({}, {"photos": 1, "size": [1, 1], "cells": [{"interval": [0, 1]}]}, [1]):
        with pytest.raises(ValueError, match="no result of a shift study"):
            ShiftResult.from_json(wrong)


def test_cells_are_those_of_every_network_area_and_layer(result: ShiftResult) -> None:
    assert result.models == ["IN", "RN"]
    assert result.intervals == list(AREAS)
    assert (result.photos, result.size) == (2, (SIDE, SIDE))
    for model in result.models:
        for interval in AREAS:
            cells = result.of(model, interval)
            assert [cell.index for cell in cells] == list(range(7))
            parts = [cell.part for cell in cells]
            assert parts == ["encoder"] * 3 + ["middle"] * 2 + ["decoder"] * 2
    assert all(isinstance(cell, ShiftCell) for cell in result.cells)


def test_tables_have_a_row_for_each_part_and_area(result: ShiftResult) -> None:
    known, equations = shift_tables(result)
    assert [row[:2] for row in known.rows[:3]] == [
        ("photo, white hole", "10-20 %"),
        ("photo, white hole", "30-40 %"),
        ("IN, encoder", "10-20 %"),
    ]
    assert len(known.rows) == 2 + 2 * 3 * 2
    assert len(equations.rows) == 3 * 2
    for table in (known, equations):
        assert all(len(row) == len(table.header) for row in table.rows)
    assert "nan" not in str(known.rows) + str(equations.rows)


def test_figure_has_four_labelled_panels(result: ShiftResult) -> None:
    figure = draw_shift(result)
    assert len(figure.axes) == 4
    for panel in figure.axes:
        assert panel.get_title()
        assert panel.get_ylabel()
        assert all(math.isfinite(y) for line in panel.lines for y in line.get_ydata())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    assert file.tell() > 1000


def test_wrong_masks_and_names_are_refused_in_one_line(
    models: dict[str, nn.Module], photos: Tensor
) -> None:
    mask = torch.zeros(2, 1, SIDE, SIDE)
    wrong = (
        ({}, {AREAS[0]: mask}, "got 0 networks"),
        (models, {}, "0 intervals"),
        (models, {AREAS[0]: mask[:1]}, "masks of 10-20 % have shape"),
        ({PHOTO: models["IN"]}, {AREAS[0]: mask}, "stands for the photo"),
    )
    for networks, masks, words in wrong:
        with pytest.raises(ValueError, match=words) as caught:
            measure_shift(networks, photos, masks)
        assert "\n" not in str(caught.value)
