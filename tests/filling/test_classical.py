"""Classical fillers called like networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from regionnorm.filling.classical import CLASSICAL_FILLERS, classical_filler

NAMES = list(CLASSICAL_FILLERS)


@pytest.fixture
def photos() -> Tensor:
    """Two smooth 8-bit photos ``[2, 3, 40, 52]``."""
    y, x = np.mgrid[0:1:40j, 0:1:52j]
    planes = [x, y, (x + y) / 2, 1 - x, 0.5 + 0 * x, x * y]
    images = torch.from_numpy(np.stack(planes)).view(2, 3, 40, 52)
    return (images * 255).round().float() / 255


@pytest.fixture
def masks() -> Tensor:
    masks = torch.zeros(2, 1, 40, 52)
    masks[0, :, 10:20, 15:30] = 1
    masks[1, :, 0:12, 0:9] = 1
    return masks


@pytest.mark.parametrize("name", NAMES)
def test_smooth_photos_are_restored_closely(name: str, photos: Tensor, masks: Tensor) -> None:
    filled = classical_filler(name)(photos, masks)
    assert filled.shape == photos.shape and filled.dtype == torch.float32
    hole = masks.expand_as(photos) > 0
    assert (filled - photos)[hole].abs().mean() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_known_pixels_come_back_unchanged(name: str, photos: Tensor, masks: Tensor) -> None:
    known = masks.expand_as(photos) == 0
    assert torch.equal(classical_filler(name)(photos, masks)[known], photos[known])


@pytest.mark.parametrize("name", NAMES)
def test_pixels_under_the_hole_are_never_read(name: str, photos: Tensor, masks: Tensor) -> None:
    other = torch.where(masks > 0, 1 - photos, photos)
    fill = classical_filler(name)
    assert torch.equal(fill(photos, masks), fill(other, masks))


@pytest.mark.parametrize("name", NAMES)
def test_several_jobs_return_the_same_in_the_same_order(
    name: str, photos: Tensor, masks: Tensor
) -> None:
    photos, masks = photos.repeat(3, 1, 1, 1), masks.repeat(3, 1, 1, 1)
    one, many = classical_filler(name), classical_filler(name, jobs=4)
    assert torch.equal(one(photos, masks), many(photos, masks))


@pytest.mark.parametrize("name", NAMES)
def test_a_hole_without_surroundings_becomes_mid_gray(name: str, photos: Tensor) -> None:
    filled = classical_filler(name)(photos, torch.ones(2, 1, 40, 52))
    assert torch.equal(filled, torch.full_like(photos, 128 / 255))


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_without_a_hole_comes_back_unchanged(name: str, photos: Tensor) -> None:
    assert torch.equal(classical_filler(name)(photos, torch.zeros(2, 1, 40, 52)), photos)


def test_an_unknown_filler_and_no_jobs_are_named_in_one_line() -> None:
    with pytest.raises(ValueError, match="unknown classical filler 'poisson'; choose one of telea"):
        classical_filler("poisson")
    with pytest.raises(ValueError, match="at least 1 job, got 0"):
        classical_filler("ns", jobs=0)
