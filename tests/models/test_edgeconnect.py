"""EdgeConnect's two stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.checkpoints.weights import load_weights, save_weights
from regionnorm.models import EdgeConnect, EdgeDiscriminator, InpaintingModel, create_model
from regionnorm.nn.edges import canny_edges, luminance


def small() -> InpaintingModel:
    return create_model("edgeconnect", width=4, blocks=1)


def stages(model: InpaintingModel) -> EdgeConnect:
    assert isinstance(model, EdgeConnect)
    return model


def example() -> tuple[Tensor, Tensor]:
    coarse = torch.rand(2, 3, 6, 5)
    mask = torch.zeros(2, 1, 48, 40)
    mask[:, :, 12:30, 10:28] = 1
    return F.interpolate(coarse, size=(48, 40)), mask


def test_both_generators_have_the_papers_size() -> None:
    with torch.device("meta"):
        model = stages(create_model("edgeconnect"))
    sizes = [
        sum(parameter.numel() for parameter in part.parameters())
        for part in (model.edge_generator, model.image_generator)
    ]
    assert sizes == [10_765_185, 10_774_595]
    assert sum(p.numel() for p in EdgeDiscriminator().parameters()) == 2_762_752


def test_the_image_generator_follows_known_edges_and_predicted_ones_in_the_hole() -> None:
    image, mask = example()
    model = stages(small())
    seen: list[Tensor] = []
    model.image_generator.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    painted = model.forward_stages(image, mask)
    known = torch.where(mask > 0, 0.0, image)
    edges = canny_edges(luminance(known), mask)
    assert edges.any()
    expected = torch.cat([known + mask, torch.where(mask > 0, painted["edges"], edges)], dim=1)
    torch.testing.assert_close(seen[0], expected)


def test_given_edges_replace_those_of_the_known_pixels() -> None:
    image, mask = example()
    model = stages(small())
    known = torch.where(mask > 0, 0.0, image)
    own = model.fill_stages(known, mask)["output"]
    given = (torch.rand_like(mask) > 0.8).float() * (1 - mask)
    assert not torch.allclose(model.fill_stages(known, mask, given)["output"], own)
    again = model.fill_stages(known, mask, canny_edges(luminance(known), mask))["output"]
    assert torch.equal(again, own)


def test_no_gradient_flows_from_the_picture_to_the_edges() -> None:
    model = stages(small())
    model.forward_stages(*example())["output"].sum().backward()
    assert all(p.grad is None for p in model.edge_generator.parameters())
    assert all(p.grad is not None for p in model.image_generator.parameters())


def test_the_edge_generators_weights_have_spectral_norm_one() -> None:
    model = stages(small())
    checked = 0
    for module in model.edge_generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight
            matrix = weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight
            norm = torch.linalg.matrix_norm(matrix.flatten(1), ord=2)
            assert 0.99 < norm < 1.15
            checked += 1
    assert checked == 8


def test_training_mode_paints_the_same_picture_each_time() -> None:
    image, mask = example()
    model = small().train()
    assert torch.equal(model(image, mask), model(image, mask))


def test_weights_survive_a_file(tmp_path: Path) -> None:
    model = small()
    save_weights(model, tmp_path / "weights.safetensors")
    image, mask = example()
    loaded = load_weights(tmp_path / "weights.safetensors")
    assert torch.equal(loaded(image, mask), model.eval()(image, mask))


def test_the_edge_discriminator_shows_five_layers() -> None:
    activations = EdgeDiscriminator(4)(torch.rand(2, 2, 64, 64))
    assert [list(a.shape[1:]) for a in activations] == [
        [4, 32, 32],
        [8, 16, 16],
        [16, 8, 8],
        [32, 7, 7],
        [1, 6, 6],
    ]


def test_options_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma 0; expected >= 1, >= 0 and > 0"):
        create_model("edgeconnect", sigma=0)
