"""Noise of a learned strength."""

from __future__ import annotations

import pytest
import torch

from regionnorm.nn.noise import PERIOD, AddedNoise


@pytest.fixture
def layer() -> AddedNoise:
    layer = AddedNoise(3)
    with torch.no_grad():
        layer.strength.copy_(torch.tensor([0.0, 1.0, -2.0]))
    return layer


def test_it_changes_nothing_at_first() -> None:
    x = torch.rand(2, 5, 7, 9)
    assert torch.equal(AddedNoise(5)(x), x)


def test_channels_share_one_map_at_their_own_strength(layer: AddedNoise) -> None:
    added = layer.eval()(torch.zeros(2, 3, 40, 30))
    assert torch.equal(added[:, 0], torch.zeros(2, 40, 30))
    assert torch.equal(added[:, 2], -2 * added[:, 1])
    assert torch.equal(added[0], added[1])
    assert abs(float(added[0, 1].detach().std()) - 1) < 0.1


def test_it_is_the_same_each_time_outside_training(layer: AddedNoise) -> None:
    x = torch.zeros(1, 3, 16, 16)
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    again = AddedNoise(3)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.eval()(x), layer(x))


def test_it_differs_between_training_steps(layer: AddedNoise) -> None:
    x = torch.zeros(1, 3, 16, 16)
    assert not torch.equal(layer(x), layer(x))


def test_features_wider_than_its_period_are_covered(layer: AddedNoise) -> None:
    added = layer.eval()(torch.zeros(1, 3, 2, PERIOD + 5))
    assert torch.equal(added[..., :5], added[..., PERIOD:])
    assert added[0, 1].ne(0).all()


def test_half_precision_and_layout_are_kept(layer: AddedNoise) -> None:
    x = torch.rand(2, 3, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    added = layer(x)
    assert added.dtype == torch.bfloat16
    assert added.is_contiguous(memory_format=torch.channels_last)


def test_strengths_are_learned() -> None:
    layer = AddedNoise(4).double().eval()
    x = torch.rand(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"strength": strength}, (x,))

    strength = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, strength))


def test_the_noise_itself_is_not_stored(layer: AddedNoise) -> None:
    assert list(layer.state_dict()) == ["strength"]
