"""What RN-L's response knows of the hole, against counting pairs and trying thresholds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regionnorm.models import create_model
from regionnorm.nn import LearnableRegionNorm2d
from regionnorm.studies.responses import knowledge


class Given(nn.Module):
    """One RN-L whose response is a sigmoid of a given map."""

    def __init__(self, response: Tensor) -> None:
        super().__init__()
        self.features = response
        self.norm = LearnableRegionNorm2d(1, kernel_size=1)
        with torch.no_grad():
            self.norm.response.weight.copy_(torch.tensor([1.0, 0]).view(1, 2, 1, 1))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.features)
        return normalised


def holes() -> Tensor:
    mask = torch.zeros(2, 1, 6, 7)
    mask[0, :, 1:4, 2:5] = 1
    mask[1, :, 3:, :4] = 1
    return mask


def test_how_surely_it_tells_is_the_share_of_pairs_in_the_usual_order() -> None:
    mask = holes()
    response = torch.randn(2, 1, 6, 7, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    (found,) = knowledge(Given(response), torch.zeros(2, 3, 6, 7), mask)
    shares = []
    for values, hole in zip(response, mask, strict=True):
        inside, outside = values[hole > 0].tolist(), values[hole == 0].tolist()
        pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
        shares.append(sum(pairs) / len(pairs))
    above = sum(shares) / 2
    assert found.telling == pytest.approx(max(above, 1 - above))
    assert found.layer == "norm"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_response_that_is_the_hole_tells_all_whichever_side_it_is_on(sign: int) -> None:
    mask = holes()
    noise = 0.1 * torch.rand(2, 1, 6, 7)
    (found,) = knowledge(Given(sign * (mask + noise)), torch.zeros(2, 3, 6, 7), mask)
    assert found.telling == 1
    assert found.best_overlap == 1
    assert found.everything == pytest.approx(mask.mean().item())


@pytest.mark.parametrize("sign", [1, -1])
def test_a_region_by_the_layers_own_threshold_counts_on_either_side(sign: int) -> None:
    mask = holes()
    wrong = mask.clone()
    wrong[0, :, 0, :2] = 1
    (found,) = knowledge(Given(9 * sign * (2 * wrong - 1)), torch.zeros(2, 3, 6, 7), mask)
    both, either = (mask * wrong).sum(), (mask + wrong).clamp(max=1).sum()
    assert found.overlap == pytest.approx((both / either).item())


def test_a_constant_response_knows_nothing() -> None:
    mask = holes()
    (found,) = knowledge(Given(torch.ones(2, 1, 6, 7)), torch.zeros(2, 3, 6, 7), mask)
    assert found.telling == 0.5
    assert found.overlap == found.best_overlap == pytest.approx(found.everything)


def test_every_rn_l_of_a_network_is_asked_and_nothing_else() -> None:
    model = create_model("rn", width=4, blocks=1)
    mask = nn.functional.interpolate(holes(), size=(32, 32))
    found = knowledge(model, torch.rand(2, 3, 32, 32), mask)
    layers = [n for n, m in model.named_modules() if isinstance(m, LearnableRegionNorm2d)]
    assert [x.layer for x in found] == [name.removesuffix(".layer") for name in layers]
    assert all(0.5 <= x.telling <= 1 for x in found)
    assert not knowledge(create_model("baseline-in", width=4), torch.rand(2, 3, 32, 32), mask)


def test_photos_without_hole_or_without_known_pixels_say_nothing() -> None:
    mask = torch.stack([torch.zeros(1, 6, 7), torch.ones(1, 6, 7)])
    assert not knowledge(Given(torch.randn(2, 1, 6, 7)), torch.zeros(2, 3, 6, 7), mask)
