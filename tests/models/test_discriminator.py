"""Discriminators of all families."""

from __future__ import annotations

import torch

from regionnorm.models import (
    GatedDiscriminator,
    MatchingDiscriminator,
    PatchDiscriminator,
    WassersteinCritic,
)


def test_each_logit_judges_a_patch_of_70_pixels() -> None:
    model = PatchDiscriminator(width=4)
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    logits = model(image)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_every_convolution_has_spectral_norm_one() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(width=8)
    with torch.no_grad():
        for _ in range(30):  # power iterations
            model(torch.rand(2, 3, 64, 64))
        convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
        assert len(convolutions) == 5
        for convolution in convolutions:
            assert convolution.bias is None
            norm = torch.linalg.matrix_norm(convolution.weight.flatten(1), 2)
            assert abs(norm.item() - 1) < 0.05


def test_sn_patchgan_judges_every_channel_of_every_location() -> None:
    model = GatedDiscriminator(width=4)
    logits = model(torch.rand(2, 4, 128, 128))
    assert logits.shape == (2, 16, 2, 2)
    assert (logits < 0).any()  # LeakyReLU, the last layer's included
    spectral = [m for m in model.modules() if hasattr(m, "parametrizations")]
    assert len(spectral) == 6


def test_a_critics_slope_is_the_length_of_its_gradient_inside_the_mask() -> None:
    critic = WassersteinCritic(16, [4, 8])
    image, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[..., 3:9, 5:8] = 1
    slopes = critic(image, mask)
    for n in range(2):
        one = image[n : n + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(one).sum(), one)
        assert torch.allclose(slopes[n], (gradient * mask[n]).norm(), rtol=1e-4)


def test_a_critics_slope_teaches_the_critic_even_where_it_is_zero() -> None:
    critic = WassersteinCritic(16, [4, 8])
    critic(torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)).sum().backward()
    weights = [p.grad for p in critic.parameters() if p.ndim > 1]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in weights)
    critic.zero_grad()
    critic(torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in critic.parameters())


def test_a_critic_computes_in_single_precision_under_autocast() -> None:
    critic, image = WassersteinCritic(16, [4, 8]), torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = critic(image)
    assert torch.equal(score, critic(image))


def test_a_matching_discriminator_shows_every_layer_and_judges_patches_of_70() -> None:
    model = MatchingDiscriminator(width=4)
    layers = model(torch.rand(2, 4, 64, 64))
    assert [list(layer.shape[1:]) for layer in layers] == [
        [4, 32, 32],
        [8, 16, 16],
        [16, 8, 8],
        [32, 7, 7],
        [1, 6, 6],
    ]
    picture = torch.rand(1, 4, 128, 128, requires_grad=True)
    model(picture)[-1][0, 0, 7, 7].backward()
    assert picture.grad is not None
    rows = picture.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_a_matching_discriminators_slopes_are_those_of_its_summed_logits() -> None:
    model, picture = MatchingDiscriminator(width=4), torch.rand(2, 4, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        (half,) = model(picture, slopes=True)
    (slopes,) = model(picture, slopes=True)
    assert torch.equal(half, slopes)
    for n in range(2):
        one = picture[n : n + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(one)[-1].sum(), one)
        assert torch.allclose(slopes[n], gradient.norm(), rtol=1e-4)
    slopes.square().mean().backward()
    grads = [p.grad for p in model.parameters() if p.ndim > 1]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
