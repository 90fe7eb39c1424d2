"""The push-pull fill."""

from __future__ import annotations

import pytest
import torch

from regionnorm.nn import push_pull


def hole(height: int, width: int, *box: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width)
    top, bottom, left, right = box
    mask[..., top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (1, 5), (64, 40)])
def test_known_pixels_are_unchanged_and_the_hole_stays_in_range(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    mask = (torch.rand(2, 1, *size) > 0.5).float()
    filled = push_pull(image, mask)
    known = mask.expand_as(image) == 0
    assert torch.equal(filled[known], image[known])
    assert filled.min() >= 0
    assert filled.max() <= 1


def test_a_constant_photo_is_restored() -> None:
    image = torch.full((1, 3, 33, 47), 0.3)
    assert torch.allclose(push_pull(image, hole(33, 47, 5, 30, 9, 40)), image, atol=1e-5)


def test_a_ramp_is_nearly_restored() -> None:
    image = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    filled = push_pull(image, hole(64, 64, 20, 44, 20, 44), smoothing=16)
    assert (filled - image).abs().max() < 0.06


def test_what_stands_under_the_hole_is_never_read() -> None:
    image, mask = torch.rand(1, 3, 24, 24), hole(24, 24, 4, 20, 4, 20)
    poisoned = torch.where(mask > 0, torch.inf, image)
    assert torch.equal(push_pull(image, mask), push_pull(poisoned, mask))


def test_a_full_hole_gives_mid_gray() -> None:
    filled = push_pull(torch.rand(1, 3, 20, 12), torch.ones(1, 1, 20, 12))
    assert torch.equal(filled, torch.full_like(filled, 0.5))


def test_one_full_hole_does_not_disturb_its_neighbour_in_the_batch() -> None:
    image = torch.rand(2, 3, 16, 16)
    mask = torch.cat([torch.ones(1, 1, 16, 16), hole(16, 16, 4, 8, 4, 8)])
    assert torch.allclose(push_pull(image, mask)[1:], push_pull(image[1:], mask[1:]))


def test_gradients_match_finite_differences() -> None:
    image = torch.rand(1, 1, 9, 7, dtype=torch.float64, requires_grad=True)
    mask = hole(9, 7, 2, 7, 2, 6).double()
    assert torch.autograd.gradcheck(lambda x: push_pull(x, mask), image)
