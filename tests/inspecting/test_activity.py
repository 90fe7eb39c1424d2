import pytest
import torch
from torch import Tensor

import regionnorm as rn
from regionnorm.inspecting.activity import layer_activity


@pytest.fixture
def photo() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:20, 8:24] = 1
    return torch.rand(2, 3, 32, 32, generator=generator), mask


def test_every_norm_with_a_relu_is_counted(photo: tuple[Tensor, Tensor]) -> None:
    model = rn.create_model("rn", width=4, blocks=2)
    zeros = layer_activity(model, *photo).zeros
    expected = [f"encoder_norms.{i}" for i in range(3)] + [f"decoder_norms.{i}" for i in range(2)]
    assert set(zeros) == {*expected, "residual.0.first_norm", "residual.1.first_norm"}
    assert all(0 < share < 1 for share in zeros.values())


@pytest.mark.parametrize("name", ["baseline-none", "baseline-bn", "rn-arch3", "partial-conv"])
def test_layers_of_other_networks_are_counted_too(name: str, photo: tuple[Tensor, Tensor]) -> None:
    assert layer_activity(rn.create_model(name, width=4), *photo).zeros


def test_layer_that_gives_nothing_is_dead(photo: tuple[Tensor, Tensor]) -> None:
    model = rn.create_model("rn-arch3", width=4, blocks=1)
    assert layer_activity(model, *photo).dead == ()
    last = model.decoder_norms[1].layer  # type: ignore[union-attr,index]
    torch.nn.init.constant_(last.bias, -100.0)  # type: ignore[arg-type]
    activity = layer_activity(model, *photo)
    assert activity.dead == ("decoder_norms.1",)
    assert activity.zeros["decoder_norms.1"] == 1.0


def test_overlap_is_one_where_a_layer_finds_the_hole(
    photo: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rn.create_model("rn", width=4, blocks=1)
    image, mask = photo
    sizes = {32: mask, 16: mask[..., ::2, ::2], 8: mask[..., ::4, ::4]}
    for side in (1, -1):  # the hole above the threshold, and below it

        def respond(self: torch.nn.Module, x: Tensor, side: int = side) -> Tensor:
            hole = sizes[x.shape[-1]]
            return hole if side > 0 else 1 - hole

        monkeypatch.setattr(rn.LearnableRegionNorm2d, "spatial_response", respond)
        found = layer_activity(model, image, mask).found
        assert set(found) == {
            "residual.0.first_norm",
            "residual.0.second_norm",
            "decoder_norms.0",
            "decoder_norms.1",
        }
        assert all(overlap == pytest.approx(1.0) for overlap in found.values())


def test_network_is_left_as_it_was(photo: tuple[Tensor, Tensor]) -> None:
    model = rn.create_model("baseline-bn", width=4, blocks=1).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer_activity(model, *photo)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
