"""What normalisation layers are given, what they find and what they make of it can be looked at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regionnorm.inspecting.layers import (
    LayerRecord,
    find_layers,
    inspect_layers,
    layer_sizes,
    learned_regions,
    mask_at,
    norm_layers,
    region_statistics,
    visit_layers,
)
from regionnorm.models import create_model, list_models
from regionnorm.nn import LearnableRegionNorm2d, convert_region_norm
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


# --- every normalisation layer -------------------------------------------------------------------

KINDS = {"rn-b": 3, "rn-l": 2 * 2 + 2}
COUNTS = {
    "rn": 21,
    "baseline-none": 0,
    "edgeconnect": 42,
    "contextual-attention": 0,
    "rn-contextual-attention": 16,
    "partial-conv": 12,
    "rn-partial-conv": 12,
    "gated-conv": 0,
    "rn-gated-conv": 16,
}


class ThirdParty(nn.Module):
    """A network with ReLUs that work in place and norms that know no mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.InstanceNorm2d(6, affine=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 3, 3, padding=1),
            nn.BatchNorm2d(3),
        )

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.layers(image)
        return result


class WithMask(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = self.net(image * (1 - mask))
        return result


def reference(features: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a region by loops over pictures and channels, in float64."""
    mean, variance = (torch.zeros(features.shape[:2], dtype=torch.float64) for _ in range(2))
    for b, picture in enumerate(features.double()):
        for c, channel in enumerate(picture):
            values = channel[where[b, 0]]
            mean[b, c], variance[b, c] = values.mean(), values.var(correction=0)
    return mean, variance


@pytest.mark.parametrize("name", list_models())
def test_every_network_lists_its_layers_and_all_of_them_run(name: str) -> None:
    model = create_model(name, width=4)
    layers = norm_layers(model)
    assert len(layers) == COUNTS.get(name, 21)
    sizes = layer_sizes(model, *inputs())
    assert {(size.layer, size.kind) for size in sizes} == set(layers)
    for size in sizes:
        assert model.get_submodule(size.layer).num_features == size.channels


def test_kinds_tell_the_layers_apart() -> None:
    kinds = [kind for _, kind in norm_layers(create_model("rn", width=4, blocks=2))]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == KINDS
    assert {kind for _, kind in norm_layers(create_model("baseline-in", width=4))} == {"in"}
    assert {kind for _, kind in norm_layers(create_model("baseline-bn", width=4))} == {"bn"}
    converted = convert_region_norm(ThirdParty(), encoder=1)
    assert [kind for _, kind in norm_layers(converted)] == ["rn-b", "rn-l"]


def test_sizes_are_those_of_the_features() -> None:
    model = create_model("partial-conv", width=4, levels=2)
    sizes = [(s.layer, s.channels, s.width, s.height) for s in layer_sizes(model, *inputs())]
    assert sizes == [("encoder_norms.1.layer", 8, 8, 8), ("decoder_norms.1.layer", 4, 16, 16)]


@pytest.mark.parametrize("name", ["rn", "baseline-in", "baseline-bn", "rn-arch3"])
def test_what_is_recorded_is_what_the_layer_was_given_and_made(name: str) -> None:
    model = create_model(name, width=4, blocks=1, threshold=0.5).eval()
    image, mask = inputs()
    for record in inspect_layers(model, image, mask):
        layer = model.get_submodule(record.layer)
        if record.kind == "rn-b":
            expected = layer(record.before, record.region.float())
        else:
            expected = layer(record.before)
        if record.kind in ("rn-b", "rn-l") and record.activation == "relu":
            assert float(record.after.min()) < 0  # recorded before it
            assert torch.allclose(record.after.relu(), expected, atol=1e-5)
        else:
            assert torch.allclose(record.after, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["rn", "baseline-in", "baseline-bn"])
def test_output_is_the_normalised_input_scaled_and_shifted(name: str) -> None:
    model = create_model(name, width=4, blocks=1, threshold=0.5).eval()
    for parameter in model.parameters():  # no gamma of one, no beta of zero
        nn.init.normal_(parameter, std=0.3)
    for record in inspect_layers(model, *inputs()):
        gamma, beta = record.gamma, record.beta
        if record.kind == "rn-l":
            gamma = 1 + gamma
        elif record.kind == "rn-b":
            known, hole = (values[..., None, None] for values in (gamma, beta)), record.region
            gamma, beta = (torch.where(hole, part[1], part[0]) for part in known)
        else:
            gamma, beta = (values[0, :, None, None] for values in (gamma, beta))
        assert torch.allclose(record.normalised * gamma + beta, record.after, atol=1e-4)


def test_rn_b_normalises_each_region_of_the_mask() -> None:
    model = create_model("rn-arch3", width=4, blocks=1, upsample="transpose")
    for record in inspect_layers(model, *inputs()):
        assert torch.equal(record.region, record.mask)
        for found in record.statistics("normalised").values():
            assert torch.allclose(found.mean, torch.zeros(()), atol=1e-5)
            assert torch.allclose(found.variance, torch.ones(()), atol=1e-2)


def test_rn_l_normalises_each_region_that_it_finds() -> None:
    model = create_model("rn", width=4, blocks=1, threshold=0.5)
    (record,) = inspect_layers(model, *inputs(), ["residual.0.first_norm"])
    assert torch.equal(record.region, record.response > record.threshold)
    statistics = record.statistics("normalised")
    assert list(statistics) == ["known", "hole", "below", "above"]
    assert 0 < float(record.region.float().mean()) < 1
    for name in ("below", "above"):
        assert torch.allclose(statistics[name].mean, torch.zeros(()), atol=1e-4)


def test_statistics_are_those_of_float64_loops() -> None:
    model = create_model("rn", width=4, blocks=1, threshold=0.5)
    image = torch.rand(2, 3, 32, 40)
    mask = (torch.rand(2, 1, 32, 40) > 0.6).float()
    for record in inspect_layers(model, image, mask, ["encoder_norms.1", "decoder_norms.0"]):
        regions = {"known": ~record.mask, "hole": record.mask}
        if record.kind == "rn-l":
            regions |= {"below": ~record.region, "above": record.region}
        for stage in ("before", "normalised", "after"):
            statistics = record.statistics(stage)
            assert list(statistics) == list(regions)
            for name, where in regions.items():
                mean, variance = reference(getattr(record, stage), where)
                assert torch.equal(statistics[name].pixels, where.flatten(1).sum(1).float())
                assert torch.allclose(statistics[name].mean.double(), mean, atol=1e-5)
                assert torch.allclose(statistics[name].variance.double(), variance, rtol=1e-4)


def test_region_without_pixels_has_no_statistics() -> None:
    found = region_statistics(torch.rand(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert found.mean.isnan().all()
    assert found.variance.isnan().all()
    assert float(found.pixels) == 0


def test_variance_keeps_its_digits_where_the_mean_is_large() -> None:
    features = torch.rand(1, 2, 64, 64) + 1000
    where = torch.rand(1, 1, 64, 64) > 0.5
    _, variance = reference(features, where)
    found = region_statistics(features, where).variance
    assert torch.allclose(found.double(), variance, rtol=1e-2)


def test_looking_leaves_output_mode_activations_and_running_statistics_as_they_were() -> None:
    model = create_model("rn", width=4, blocks=1, stats="batch", track_running_stats=True)
    image, mask = inputs()
    model.train()
    model(image, mask)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    text = repr(model)
    kept = []
    output = visit_layers(model, image, mask, kept.append)
    assert len(kept) == len(norm_layers(model))
    assert all(module.training for module in model.modules())
    assert repr(model) == text
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.inference_mode():
        assert torch.allclose(model.eval()(image, mask), output, atol=1e-6)


def test_nothing_is_left_behind_when_the_network_or_the_visitor_fails() -> None:
    model = create_model("rn", width=4, blocks=1).train()
    text = repr(model)
    image, mask = inputs()

    def refuse(record: LayerRecord) -> None:
        raise RuntimeError(record.layer)

    with pytest.raises(RuntimeError, match="encoder_norms"):
        visit_layers(model, image, mask, refuse)
    with pytest.raises(ValueError, match="mask has shape"):
        inspect_layers(model, image, mask[..., :20])
    with pytest.raises(ValueError, match="mask has shape"):
        layer_sizes(model, image, mask[..., :20])
    assert repr(model) == text
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_follows_in_place_does_not_change_the_record() -> None:
    model = WithMask(ThirdParty())
    first, second = inspect_layers(model, *inputs())
    assert (first.kind, second.kind) == ("in", "bn")
    assert float(first.after.min()) < 0
    assert first.region is None
    assert first.gamma.shape == (1, 6)
    layer = model.get_submodule(second.layer)
    expected = (second.before - layer.running_mean[:, None, None]) / (1 + layer.eps) ** 0.5
    assert torch.allclose(second.normalised, expected, atol=1e-5)


def test_converted_networks_show_the_regions_of_the_mask() -> None:
    model = convert_region_norm(ThirdParty(), encoder=1, threshold=0.5)
    image, mask = inputs()
    rn_b, rn_l = inspect_layers(model, image * (1 - mask), mask)
    assert torch.equal(rn_b.region, mask > 0.5)
    assert rn_l.response.shape == (1, 1, 32, 32)


def test_names_stand_for_layers_and_for_modules_that_hold_some() -> None:
    model = create_model("rn", width=4, blocks=2)
    both = ["residual.1.first_norm.layer", "residual.1.second_norm.layer"]
    assert find_layers(model, ["residual.1"]) == both
    assert find_layers(model, both[::-1]) == both
    assert find_layers(model, ["residual.1.first_norm"]) == both[:1]
    assert find_layers(model) == [name for name, _ in norm_layers(model)]


def test_unknown_layer_is_refused_with_close_names() -> None:
    model = create_model("rn", width=4, blocks=2)
    with pytest.raises(ValueError, match=r"residual\.1\.first_norm.*--list-layers") as caught:
        inspect_layers(model, *inputs(), ["residual.1.frist_norm"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no normalisation layer at all"):
        inspect_layers(create_model("baseline-none", width=4), *inputs(), ["encoder"])


def test_half_precision_weights_give_float32_records() -> None:
    model = create_model("rn", width=4, blocks=1).eval()
    expected = inspect_layers(model, *inputs())
    cast_convolutions(model, torch.bfloat16)
    for half, full in zip(inspect_layers(model, *inputs()), expected, strict=True):
        assert half.before.dtype == half.normalised.dtype == half.after.dtype == torch.float32
        assert torch.allclose(half.before, full.before, atol=0.2)


def test_masks_are_padded_as_the_network_pads_the_picture() -> None:
    model = create_model("rn", width=4, blocks=1)
    image, mask = torch.rand(1, 3, 33, 35), torch.zeros(1, 1, 33, 35)
    mask[..., 20:, 20:] = 1
    for record in inspect_layers(model, image, mask, ["encoder_norms"]):
        assert torch.equal(record.region, record.mask)
        assert torch.equal(mask_at(model, mask, record.mask.shape[-2:]), record.mask)


def test_looking_for_regions_moves_no_running_statistics() -> None:
    model = create_model("rn", width=8, stats="batch", track_running_stats=True).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    image, mask = inputs()
    found = learned_regions(model, image, mask)
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name])
    assert model.training and all(module.training for module in model.modules())
    again = learned_regions(model, image, mask > 0)
    assert torch.equal(again[0].region, found[0].region)
