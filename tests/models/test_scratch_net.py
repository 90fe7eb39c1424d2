"""The network that finds scratches."""

from __future__ import annotations

import pytest
import torch

from regionnorm.models.scratch_net import ScratchNet, logits_of_views


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


def test_views_turn_with_the_photo() -> None:
    network, photo = ScratchNet(widths=(4, 4, 8, 8)).eval(), torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        logits = logits_of_views(network, photo)
        turned = logits_of_views(network, photo.flip((2, 3))).flip((2, 3))
        assert torch.allclose(logits, turned, atol=1e-5)
        assert not torch.allclose(logits, network(photo), atol=1e-5)
