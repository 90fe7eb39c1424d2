"""The network that finds scratches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regionnorm.models.scratch_net import ScratchNet, grow, logits_of_views


@pytest.mark.parametrize(
    ("norm", "stats"),
    [("rn-l", "instance"), ("rn-l", "batch"), ("in", "instance"), ("bn", "batch"), ("none", "")],
)
def test_every_norm_gives_a_logit_for_each_pixel(norm: str, stats: str) -> None:
    network = ScratchNet(norm=norm, stats=stats or "instance", widths=(4, 4, 8, 8))
    logits = network(torch.rand(2, 3, 48, 32))
    assert logits.shape == (2, 1, 48, 32)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_at_first_hardly_any_pixel_is_a_mark() -> None:
    with torch.no_grad():
        assert float(torch.sigmoid(ScratchNet()(torch.rand(1, 3, 64, 64))).mean()) < 0.2


@pytest.mark.parametrize("shape", [(1, 3, 40, 48), (1, 1, 48, 48), (3, 48, 48)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        ScratchNet(widths=(4, 4, 8, 8))(torch.zeros(shape))


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="four numbers above 0"):
        ScratchNet(widths=(4, 4, 0, 8))


def test_odd_numbers_of_residual_units_are_refused() -> None:
    with pytest.raises(ValueError, match="four numbers, 0 or more"):
        ScratchNet(widths=(4, 4, 8, 8), refine=(0, -1, 0, 0))


@pytest.mark.parametrize(
    ("norm", "widths", "refine"),
    [("bn", (6, 8, 8, 12), (1, 5, 2, 1)), ("bn", (4, 4, 8, 8), (0, 1, 0, 0)),
     ("rn-l", (4, 4, 8, 8), (1, 1, 1, 1))],
)  # fmt: skip
def test_a_grown_network_says_at_first_what_the_smaller_one_says(
    norm: str, widths: tuple[int, int, int, int], refine: tuple[int, int, int, int]
) -> None:
    photo = torch.rand(2, 3, 48, 32)
    smaller = ScratchNet(norm=norm, stats="batch", widths=(4, 4, 8, 8))
    smaller(photo)  # running averages of its own
    larger = ScratchNet(norm=norm, stats="batch", widths=widths, refine=refine)
    grow(larger, smaller)
    larger.train()(photo).square().mean().backward()
    grown = [p.grad for name, p in larger.named_parameters() if name.endswith("scale")]
    assert grown and all(g is not None and bool(g.abs().sum() > 0) for g in grown)
    grow(larger, smaller)  # its averages have moved
    with torch.inference_mode():
        logits = larger.eval()(photo)
        assert torch.allclose(logits, smaller.eval()(photo), atol=1e-5)


@pytest.mark.parametrize("options", [{"widths": (4, 4, 8, 6)}, {"norm": "none"}])
def test_a_network_that_is_no_larger_cannot_take_what_another_learned(options: Any) -> None:
    smaller = ScratchNet(norm="bn", widths=(4, 4, 8, 8))
    with pytest.raises(ValueError, match="has no room in the larger one"):
        grow(ScratchNet(**{"norm": "bn", "widths": (4, 4, 8, 8)} | options), smaller)


def test_views_turn_with_the_photo() -> None:
    network, photo = ScratchNet(widths=(4, 4, 8, 8)).eval(), torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        logits = logits_of_views(network, photo)
        for turns in range(1, 4):
            turned = logits_of_views(network, torch.rot90(photo, turns, (2, 3)))
            assert torch.allclose(logits, torch.rot90(turned, -turns, (2, 3)), atol=1e-5)
        assert not torch.allclose(logits, network(photo), atol=1e-5)
