"""Contextual attention, gated and partial convolution: sizes, norms and options of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regionnorm.models import PartialConvNet, create_model
from regionnorm.nn import LearnableRegionNorm2d, PartialConv2d, RegionNorm2d

TWO_STAGES = ["contextual-attention", "gated-conv"]


def example(size: int = 32) -> tuple[Tensor, Tensor]:
    image, mask = torch.rand(2, 3, size, size), torch.zeros(2, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 :] = 1
    return image, mask


def norms(module: nn.Module) -> list[nn.Module]:
    kinds = (RegionNorm2d, LearnableRegionNorm2d, nn.BatchNorm2d, nn.InstanceNorm2d)
    return [part for part in module.modules() if isinstance(part, kinds)]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("contextual-attention", {}, 3_601_542),
        ("gated-conv", {}, 4_052_478),
        ("partial-conv", {}, 25_784_276),
        ("partial-conv", {"levels": 8}, 32_865_236),
    ],
)
def test_published_widths_give_these_numbers_of_parameters(
    name: str, options: dict[str, Any], count: int
) -> None:
    with torch.device("meta"):
        model = create_model(name, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", TWO_STAGES)
def test_as_published_there_is_no_norm(name: str) -> None:
    assert not norms(create_model(name, width=8))


@pytest.mark.parametrize("name", [f"rn-{name}" for name in TWO_STAGES])
def test_rn_acts_in_the_coarse_network_only(name: str) -> None:
    model = create_model(name, width=8)
    parts = {key: [type(norm) for norm in norms(part)] for key, part in model.named_children()}
    assert parts["coarse_encoder"] == [RegionNorm2d] * 6
    assert parts["coarse_middle"] == [LearnableRegionNorm2d] * 6
    assert parts["coarse_decoder"] == [LearnableRegionNorm2d] * 4
    assert sum(map(len, parts.values())) == 16


def test_rn_replaces_every_batch_norm_of_partial_convolution() -> None:
    plain, ours = (create_model(name, width=4) for name in ("partial-conv", "rn-partial-conv"))
    assert len(norms(plain)) == len(norms(ours)) == 12
    assert {type(norm) for norm in norms(plain)} == {nn.BatchNorm2d}
    assert isinstance(ours, PartialConvNet)
    assert {type(norm) for norm in norms(ours.encoder_norms)} == {RegionNorm2d}
    assert {type(norm) for norm in norms(ours.decoder_norms)} == {LearnableRegionNorm2d}


def test_regions_are_those_of_the_given_mask_at_each_size() -> None:
    model = create_model("rn-partial-conv", width=4, levels=3)
    seen: list[tuple[Tensor, Tensor]] = []
    for norm in norms(model):
        if isinstance(norm, RegionNorm2d):
            norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    image, mask = example()
    model(image, mask)
    assert [region.shape[-1] for _, region in seen] == [8, 4]
    for x, region in seen:
        assert x.shape[2:] == region.shape[2:]
        assert torch.equal(region, nn.functional.interpolate(mask, size=region.shape[2:]))


@pytest.mark.parametrize("name", TWO_STAGES)
def test_the_second_stage_sees_the_first_only_in_the_hole(name: str) -> None:
    image, mask = example()
    model = create_model(name, width=8)
    seen: list[Tensor] = []
    model.refine_convolutions.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    stages = model.forward_stages(image, mask)
    pasted = (seen[0][:, :3] + 1) / 2
    assert torch.allclose(pasted, torch.where(mask > 0, stages["coarse"], image), atol=1e-6)
    assert seen[0].shape[1] == (5 if name == "contextual-attention" else 3)


@pytest.mark.parametrize("name", [*TWO_STAGES, *(f"rn-{name}" for name in TWO_STAGES)])
def test_features_neither_vanish_nor_explode_at_the_start(name: str) -> None:
    model = create_model(name, width=16)
    seen: list[float] = []
    for part in (model.coarse_decoder, model.refine_decoder):
        part.output.register_forward_pre_hook(lambda m, x: seen.append(x[0].std().item()))
    model(*example(64))
    assert len(seen) == 2
    assert all(0.05 < value < 20 for value in seen)


def test_partial_convolutions_have_covered_the_picture_at_the_end() -> None:
    model = create_model("partial-conv", width=4, levels=4)
    last = model.get_submodule("decoder.0")
    assert isinstance(last, PartialConv2d)
    seen: list[Tensor] = []
    last.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[1]))
    model(*example(48))
    assert seen[0].min() == 1


def test_frozen_encoder_norms_do_not_change_in_training() -> None:
    model = create_model("partial-conv", width=4, levels=3, frozen_encoder_norm=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(*example()).sum().backward()
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.startswith("decoder_norms") for key in changed)
    assert not any(key.startswith("encoder_norms") for key in changed)
    assert isinstance(model, PartialConvNet)
    assert all(parameter.grad is None for parameter in model.encoder_norms.parameters())


@pytest.mark.parametrize("stats", ["batch", "layer", "group:2"])
@pytest.mark.parametrize("name", ["rn-contextual-attention", "rn-gated-conv", "rn-partial-conv"])
def test_rn_takes_other_statistics(name: str, stats: str) -> None:
    output = create_model(name, width=8, stats=stats, threshold=0.5)(*example())
    assert torch.isfinite(output).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("contextual-attention", {"width": 3}),
        ("contextual-attention", {"width": 0}),
        ("gated-conv", {"width": 6}),
        ("partial-conv", {"width": 0}),
        ("partial-conv", {"levels": 1}),
        ("gated-conv", {"blocks": 2}),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(options)):
        create_model(name, **options)


@pytest.mark.parametrize("norm", ["rn-b", "rn-l"])
def test_levels_of_a_few_pixels_keep_what_they_are_given(norm: str) -> None:
    # Four halvings of 16 pixels: a norm of one pixel alone would leave nothing of it.
    model = PartialConvNet(norm, norm, width=4, levels=4)
    seen: list[Tensor] = []
    model.encoder_norms[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.decoder[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.rand(2, 3, 16, 16)
    model(image, torch.zeros(2, 1, 16, 16))
    deepest = seen[-1][:, :16]
    assert (deepest[0] - deepest[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", ["rn-contextual-attention", "rn-gated-conv", "rn-partial-conv", "rn"]
)
def test_running_statistics_are_an_option_of_every_network_with_rn(name: str) -> None:
    model = create_model(name, width=4, stats="batch", track_running_stats=True)
    layers = [part for part in norms(model) if isinstance(part, RegionNorm2d)]
    assert layers
    assert all(layer.track_running_stats for layer in layers)
    image, mask = example()
    single = model.eval()(image[:1], mask[:1])
    assert torch.allclose(model(image, mask)[:1], single, atol=1e-5)
