"""The regions that RN-L layers find can be looked at."""

from __future__ import annotations

import torch

from regionnorm.inspect import learned_regions
from regionnorm.models import create_model
from regionnorm.nn import LearnableRegionNorm2d
from regionnorm.nn.precision import cast_convolutions


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), mask


def test_every_rn_l_layer_is_reported_once_in_the_order_of_the_network() -> None:
    model = create_model("rn", width=4, blocks=2).eval()
    layers = [n for n, m in model.named_modules() if isinstance(m, LearnableRegionNorm2d)]
    found = learned_regions(model, *inputs())
    assert [region.layer for region in found] == layers
    assert len(found) == 2 * 2 + 2


def test_region_is_where_the_response_exceeds_the_layers_threshold() -> None:
    model = create_model("rn", width=4, blocks=1, threshold=0.5).eval()
    for found in learned_regions(model, *inputs()):
        assert torch.equal(found.region, found.response > 0.5)
        assert 0 <= found.share <= 1


def test_looking_leaves_the_network_as_it_was() -> None:
    model = create_model("rn", width=4, blocks=1).eval()
    image, mask = inputs()
    with torch.inference_mode():
        before = model(image, mask)
        learned_regions(model, image, mask)
        assert torch.equal(model(image, mask), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_weights_in_half_precision_can_be_looked_at() -> None:
    model = create_model("rn", width=4, blocks=1).eval()
    expected = learned_regions(model, *inputs())
    cast_convolutions(model, torch.bfloat16)
    for half, full in zip(learned_regions(model, *inputs()), expected, strict=True):
        assert half.response.dtype == torch.float32
        assert torch.allclose(half.response, full.response, atol=0.1)


def test_network_without_rn_l_has_no_learned_regions() -> None:
    assert learned_regions(create_model("baseline-in", width=4, blocks=1).eval(), *inputs()) == []
