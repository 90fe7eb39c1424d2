"""The networks of the RN family under the contract ``model(image, mask) -> image``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regionnorm.models import RNGenerator, create_model, list_models
from regionnorm.models.rn import Blur
from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d

PREFILLS = ["constant", "diffusion"]
FAMILY = [
    name for name in list_models() if name == "rn" or name.startswith(("rn-arch", "baseline"))
]


def example(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, height, width, generator=random)
    mask = (torch.rand(2, 1, height // 4 + 1, width // 4 + 1, generator=random) > 0.6).float()
    mask = nn.functional.interpolate(mask, size=(height, width))
    return image, mask


def small(name: str, **options: object) -> RNGenerator:
    torch.manual_seed(0)
    model = create_model(name, **{"width": 4, "blocks": 2, **options})
    assert isinstance(model, RNGenerator)
    # The output starts at zero with diffusion; give it weights so that the claims have content.
    nn.init.normal_(model.output.weight, std=0.3)
    return model


@pytest.mark.parametrize("prefill", PREFILLS)
@pytest.mark.parametrize("name", FAMILY)
def test_output_has_the_inputs_size_and_range(name: str, prefill: str) -> None:
    image, mask = example(50, 37)
    output = small(name, prefill=prefill)(image, mask)
    assert output.shape == image.shape
    assert output.min() >= 0
    assert output.max() <= 1
    assert output.std() > 0.01


@pytest.mark.parametrize("prefill", PREFILLS)
@pytest.mark.parametrize("name", FAMILY)
def test_pixels_under_the_hole_are_never_read(name: str, prefill: str) -> None:
    image, mask = example(32, 40)
    model = small(name, prefill=prefill)
    poisoned = torch.where(mask > 0, torch.nan, image)
    assert torch.equal(model(image, mask), model(poisoned, mask))


@pytest.mark.parametrize("name", FAMILY)
def test_state_dict_restores_the_network(name: str) -> None:
    image, mask = example(32, 32)
    first, second = small(name), create_model(name, width=4, blocks=2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(image, mask), second(image, mask))


@pytest.mark.parametrize("prefill", PREFILLS)
def test_a_skip_starts_silent_and_is_trained(prefill: str) -> None:
    image, mask = example(34, 37)
    model = create_model("rn", width=4, blocks=1, prefill=prefill, skip=True)
    assert isinstance(model, RNGenerator)
    nn.init.normal_(model.output.weight[:, :4], std=0.3)
    with torch.no_grad():
        expected = model(image, mask)
        for parameter in model.skip.parameters():
            parameter.normal_()
    output = model(image, mask)
    assert torch.equal(output, expected)
    output.square().mean().backward()
    assert model.output.weight.grad[:, 4:].abs().max() > 0
    with torch.no_grad():
        model.output.weight -= model.output.weight.grad
    output = model(image, mask)
    assert not torch.equal(output, expected)
    model.zero_grad()
    output.square().mean().backward()
    assert model.skip.weight.grad.abs().max() > 0


def test_a_skip_carries_what_a_quarter_of_the_resolution_cannot() -> None:
    """A checkerboard of single pixels reaches the output's features."""
    torch.manual_seed(0)
    model = create_model("rn", width=4, blocks=0, skip=True)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    image = ((rows + columns) % 2).float().expand(1, 3, -1, -1)
    seen: list[Tensor] = []
    model.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(image, torch.zeros(1, 1, 32, 32))
    below, beside = seen[0].split(4, dim=1)
    inner = (..., slice(8, -8), slice(8, -8))

    def alternation(features: Tensor) -> Tensor:
        features = features[inner]
        return (features[..., 1:] - features[..., :-1]).abs().mean() / features.abs().mean()

    assert alternation(beside) > 0.5
    assert beside.shape == below.shape


def test_paper_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in create_model("rn").parameters())
    assert count == pytest.approx(11.6e6, rel=0.005)


@pytest.mark.parametrize(
    ("name", "encoder", "residual", "decoder"),
    [
        ("rn", RegionNorm2d, LearnableRegionNorm2d, LearnableRegionNorm2d),
        ("rn-arch1", RegionNorm2d, nn.InstanceNorm2d, nn.InstanceNorm2d),
        ("rn-arch2", RegionNorm2d, RegionNorm2d, nn.InstanceNorm2d),
        ("rn-arch3", RegionNorm2d, RegionNorm2d, RegionNorm2d),
        ("rn-arch4", RegionNorm2d, LearnableRegionNorm2d, nn.InstanceNorm2d),
        ("rn-arch5", RegionNorm2d, LearnableRegionNorm2d, LearnableRegionNorm2d),
        ("rn-arch6", LearnableRegionNorm2d, LearnableRegionNorm2d, LearnableRegionNorm2d),
        ("baseline-in", nn.InstanceNorm2d, nn.InstanceNorm2d, nn.InstanceNorm2d),
        ("baseline-bn", nn.BatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d),
        ("baseline-none", nn.Identity, nn.Identity, nn.Identity),
    ],
)
def test_each_stage_has_the_norm_of_table_2(
    name: str, encoder: type, residual: type, decoder: type
) -> None:
    model = small(name)
    assert {type(norm.layer) for norm in model.encoder_norms} == {encoder}
    blocks = [norm.layer for b in model.residual for norm in (b.first_norm, b.second_norm)]
    assert {type(layer) for layer in blocks} == {residual}
    assert {type(norm.layer) for norm in model.decoder_norms} == {decoder}


@pytest.mark.parametrize("name", ["rn", "baseline-in", "baseline-bn", "baseline-none"])
def test_ten_steps_lower_the_loss(name: str) -> None:
    image, mask = example(32, 32)
    torch.manual_seed(0)
    model = create_model(name, width=8, blocks=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(10):
        loss = (model(image, mask) - image).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", ["rn", "baseline-none"])
def test_features_neither_vanish_nor_explode_at_the_start(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, width=8)
    seen = []
    model.output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].std()))
    model(*example(64, 64))
    assert 0.1 < seen[0] < 10


def test_diffusion_prefill_starts_from_the_diffusion_itself() -> None:
    from regionnorm.nn import push_pull

    image, mask = example(32, 32)
    output = create_model("rn", width=4, prefill="diffusion")(image, mask)
    assert torch.allclose(output, push_pull(image, mask), atol=1e-6)


@pytest.mark.parametrize("upsample", ["pixelshuffle", "pixelshuffle-blur", "transpose"])
@pytest.mark.parametrize("stats", ["instance", "batch", "layer", "group:2"])
def test_options_give_working_networks(upsample: str, stats: str) -> None:
    image, mask = example(24, 24)
    output = small("rn", upsample=upsample, stats=stats)(image, mask)
    assert torch.isfinite(output).all()


def test_instance_statistics_make_a_picture_independent_of_its_batch() -> None:
    image, mask = example(32, 32)
    model = small("rn")
    alone = model(image[:1], mask[:1])
    assert torch.allclose(model(image, mask)[:1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        ((1, 1, 32, 32), (1, 1, 32, 32), "expected"),
        ((1, 3, 32, 32), (1, 1, 32, 31), "mask has shape"),
        ((1, 3, 15, 32), (1, 1, 15, 32), "16 or more"),
    ],
)
def test_wrong_shapes_are_named(
    image: tuple[int, ...], mask: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small("rn")(torch.zeros(image), torch.zeros(mask))


@pytest.mark.parametrize(
    "options",
    [
        {"prefill": "nonsense"},
        {"width": 0},
        {"upsample": "bilinear"},
        {"stats": "group:3"},
        {"threshold": 2.0},
        {"colour": "red"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="."):
        create_model("rn", **{"width": 4, **options})


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="baseline-in"):
        create_model("resnet")


def test_created_networks_remember_name_and_options() -> None:
    model = create_model("rn-arch1", width=4)
    assert (model.name, model.options) == ("rn-arch1", {"width": 4})


def test_blur_takes_out_what_the_shuffle_alternates() -> None:
    y, x = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    smooth = torch.rand(2, 3, 1, 1).expand(2, 3, 12, 10)
    for pattern in ((-1.0) ** x, (-1.0) ** y, (-1.0) ** (x + y)):
        blurred = Blur()(smooth + pattern)
        inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
        torch.testing.assert_close(blurred[inside], smooth[inside])


def test_blur_is_the_binomial_filter() -> None:
    x = torch.rand(1, 1, 9, 7, dtype=torch.float64)
    row = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = nn.functional.conv2d(padded, torch.outer(row, row)[None, None])
    torch.testing.assert_close(Blur()(x), expected)


def test_noise_is_part_of_the_fill_and_the_same_each_time() -> None:
    image, mask = example(32, 32)
    model = small("rn", noise=True).eval()
    quiet = small("rn").eval()
    quiet.load_state_dict(
        {name: value for name, value in model.state_dict().items() if "noise" not in name}
    )
    assert torch.equal(model(image, mask), quiet(image, mask))  # strengths start at 0
    with torch.no_grad():
        for parameter in model.decoder_noise.parameters():
            parameter.fill_(0.5)
    assert not torch.equal(model(image, mask), quiet(image, mask))
    assert torch.equal(model(image, mask), model(image, mask))
