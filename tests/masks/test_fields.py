"""Masks from fields: exact areas, half at the border, a function of the generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regionnorm.masks.fields import FIELD_KINDS, _Draw, field_masks


def draw(batch: int = 24, height: int = 32, width: int = 32, seed: int = 0, **options) -> Tensor:
    return field_masks(torch.Generator().manual_seed(seed), batch, height, width, **options)


def at_border(masks: Tensor) -> Tensor:
    """Which masks ``[B, 1, H, W]`` reach the border."""
    inside = masks.clone()
    inside[..., 1:-1, 1:-1] = 0
    return inside.flatten(1).any(dim=1)


def test_masks_are_zeros_and_ones_of_the_promised_shape() -> None:
    masks = draw(5, 24, 40)
    assert masks.shape == (5, 1, 24, 40)
    assert masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 21)])
def test_every_hole_has_exactly_the_area_that_was_drawn(height: int, width: int) -> None:
    for seed in range(3):
        wanted = _Draw(torch.Generator().manual_seed(seed), 24, height, width, 0.6)
        masks = draw(24, height, width, seed)
        assert torch.equal(masks.flatten(1).sum(dim=1), wanted.count.float())


def test_areas_are_uniform_up_to_the_largest() -> None:
    shares = torch.cat(
        [draw(64, 16, 16, seed, max_area=0.5).mean(dim=(1, 2, 3)) for seed in (0, 1)]
    )
    assert shares.max() <= 0.5
    assert shares.min() >= 1 / 256
    expected = torch.linspace(0.01, 0.5, len(shares))
    # Kolmogorov and Smirnov's distance, well above what chance gives for this many.
    assert (shares.sort().values - expected).abs().max() < 0.13 * 0.5


def test_every_other_mask_touches_the_border_and_the_others_do_not() -> None:
    for seed in range(4):
        touching = at_border(draw(12, seed=seed))
        assert touching.sum() == 6
        assert torch.equal(touching[::2], touching[:1].expand(6))


def test_a_hole_too_large_to_stay_clear_touches_the_border() -> None:
    masks = draw(32, 16, 16, max_area=0.95)
    large = masks.mean(dim=(1, 2, 3)) > 0.8
    assert large.any()
    assert at_border(masks)[large].all()


def test_masks_are_a_function_of_the_generators_state() -> None:
    assert torch.equal(draw(seed=3), draw(seed=3))
    assert not torch.equal(draw(seed=3), draw(seed=4))
    before = torch.get_rng_state()
    draw()
    assert torch.equal(torch.get_rng_state(), before)


def test_all_kinds_are_drawn_and_large_holes_are_no_scratches() -> None:
    batch = _Draw(torch.Generator().manual_seed(0), 400, 16, 16, 0.6)
    kinds = {FIELD_KINDS[kind] for kind in batch.kind.tolist()}
    assert kinds == set(FIELD_KINDS)
    scratched = batch.kind == FIELD_KINDS.index("scratch")
    assert (batch.count[scratched] / 256).max() <= 0.31


def test_holes_are_whole_pieces_not_dust() -> None:
    masks = draw(24, 48, 48, seed=1)
    neighbours = sum(masks.roll(shift, dim) for shift in (1, -1) for dim in (2, 3))
    lonely = (masks * (neighbours == 0)).sum() / masks.sum()
    assert lonely < 0.002


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 8}, "at least 16"),
        ({"max_area": 0.0}, "above 0"),
        ({"max_area": 0.99}, "at most 0.95"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        draw(**arguments)
    assert "\n" not in str(caught.value)
