"""Losses against naive float64 formulas, with their gradients and edge cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from regionnorm.losses import (
    AdversarialKind,
    ReconstructionKind,
    discriminator_loss,
    feature_distance,
    feature_matching_loss,
    generator_loss,
    gradient_penalty,
    gram_matrix,
    perceptual_loss,
    reconstruction_loss,
    spatial_discount,
    style_loss,
    total_variation_loss,
)

SHAPES = [(1, 3, 1, 1), (2, 3, 5, 7), (3, 3, 1, 4)]
KINDS = get_args(AdversarialKind)
RECONSTRUCTION_KINDS = get_args(ReconstructionKind)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_mask(batch: int, height: int, width: int) -> Tensor:
    mask = (random(batch, 1, height, width, seed=9) > 0).double()
    mask[0, 0, 0, 0] = 1
    return mask


def random_features(seed: int) -> dict[str, Tensor]:
    """ReLU-like activations of three layers, odd sizes."""
    shapes = {"relu1_1": (2, 4, 7, 5), "relu2_1": (2, 6, 3, 2), "relu3_1": (2, 3, 1, 1)}
    return {k: random(*s, seed=seed + i).relu() for i, (k, s) in enumerate(shapes.items())}


def naive_discount(mask: Tensor, y: int, x: int) -> float:
    """0.99 to the power of the chessboard distance from one pixel of ``[H, W]`` to a known one."""
    known = (mask == 0).nonzero().tolist()
    distances = [max(abs(y - v), abs(x - u)) for v, u in known]
    return 0.99 ** max(0, min(distances) - 1) if distances else 1.0


def naive_reconstruction(output: Tensor, target: Tensor, mask: Tensor, kind: str) -> float:
    batch, channels, height, width = output.shape
    plain = weighted = holes = inside = outside = 0.0
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                hole = mask[b, 0, y, x].item()
                holes += hole
                for c in range(channels):
                    error = abs(output[b, c, y, x].item() - target[b, c, y, x].item())
                    plain += error
                    weighted += error * (6 if hole else 1)
                    inside += error * hole * naive_discount(mask[b, 0], y, x)
                    outside += error * (1 - hole)
    plain, weighted = plain / output.numel(), weighted / output.numel()
    share = holes / mask.numel()
    discounted = (inside + outside / ((1 - share) or 1)) / output.numel()
    losses = {"l1": plain, "l1_over_hole_share": plain / share, "l1_weighted": weighted}
    return {**losses, "l1_discounted": discounted}[kind]


@pytest.mark.parametrize("kind", RECONSTRUCTION_KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_matches_naive_formula(
    shape: tuple[int, ...], kind: ReconstructionKind
) -> None:
    output, target = random(*shape, seed=1), random(*shape, seed=2)
    mask = random_mask(shape[0], *shape[2:])
    expected = naive_reconstruction(output, target, mask, kind)
    for given in (mask, mask.bool(), mask.float()):
        loss = reconstruction_loss(output, target, given, kind=kind)
        assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_discount_falls_with_the_distance_to_the_known_pixels() -> None:
    mask = torch.zeros(3, 1, 12, 9)
    mask[0, :, 2:9, 1:8] = 1
    mask[1, :, :, 4:] = 1
    mask[2] = 1
    discount = spatial_discount(mask, gamma=0.5)
    assert discount[0, 0, 5, :].tolist() == [1, 1, 0.5, 0.25, 0.125, 0.25, 0.5, 1, 1]
    # Beyond the picture's edge nothing is known.
    assert discount[1, 0, 3, :].tolist() == [1, 1, 1, 1, 1, 0.5, 0.25, 0.125, 0.0625]
    assert (discount[2] == 1).all()
    assert (spatial_discount(mask[2:]) == 1).all()


def test_gradient_penalty_is_zero_for_slopes_of_one() -> None:
    assert gradient_penalty(torch.ones(3)) == 0
    assert gradient_penalty(torch.tensor([0.0, 3.0])) == 2.5
    assert gradient_penalty(torch.tensor([0.0, 3.0]), wanted=0.0) == 4.5


@pytest.mark.parametrize("kind", KINDS)
def test_judgements_count_by_their_weights(kind: AdversarialKind) -> None:
    real, fake = random(2, 1, 4, 3), random(2, 1, 4, 3, seed=1)
    weight = torch.zeros(2, 1, 4, 3, dtype=real.dtype)
    weight[0, 0, 1, 2], weight[1, 0, 3, 0] = 0.25, 0.75
    chosen = [x[[0, 1], [0, 0], [1, 3], [2, 0]] for x in (real, fake)]
    single = [discriminator_loss(r[None], f[None], kind) for r, f in zip(*chosen, strict=True)]
    loss = discriminator_loss(real, fake, kind, weight)
    assert torch.allclose(loss, 0.25 * single[0] + 0.75 * single[1])
    single = [generator_loss(f[None], kind) for f in chosen[1]]
    assert torch.allclose(generator_loss(fake, kind, weight), 0.25 * single[0] + 0.75 * single[1])
    # Without any hole there is nothing to judge.
    assert generator_loss(fake, kind, torch.zeros_like(weight)) == 0
    with pytest.raises(ValueError, match="same shape"):
        generator_loss(fake, kind, weight[:, :, :1])


def test_weighted_reconstruction_takes_its_weights() -> None:
    output, target, mask = random(1, 3, 5, 4), random(1, 3, 5, 4, seed=1), random_mask(1, 5, 4)
    loss = reconstruction_loss(
        output, target, mask, kind="l1_weighted", hole_weight=0.0, valid_weight=2.5
    )
    expected = 2.5 * ((output - target).abs() * (1 - mask)).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", RECONSTRUCTION_KINDS)
def test_reconstruction_with_empty_mask_is_plain_l1(kind: ReconstructionKind) -> None:
    output = random(2, 3, 4, 5).requires_grad_()
    target = random(2, 3, 4, 5, seed=1)
    loss = reconstruction_loss(output, target, torch.zeros(2, 1, 4, 5), kind=kind)
    torch.testing.assert_close(loss, (output - target).abs().mean())
    loss.backward()
    assert output.grad is not None and output.grad.isfinite().all()


def naive_adversarial(real: Tensor, fake: Tensor, kind: str) -> tuple[float, float]:
    def mean(term: Callable[[float], float], logits: Tensor) -> float:
        return sum(term(v) for v in logits.flatten().tolist()) / logits.numel()

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    terms: dict[str, tuple[Callable[[float], float], ...]] = {
        "nsgan": (
            lambda r: -math.log(sigmoid(r)),
            lambda f: -math.log(1 - sigmoid(f)),
            lambda f: -math.log(sigmoid(f)),
        ),
        "lsgan": (lambda r: (r - 1) ** 2, lambda f: f**2, lambda f: (f - 1) ** 2),
        "hinge": (lambda r: max(0.0, 1 - r), lambda f: max(0.0, 1 + f), lambda f: -f),
        "wgan": (lambda r: -r, lambda f: f, lambda f: -f),
    }
    on_real, on_fake, generator = terms[kind]
    return (mean(on_real, real) + mean(on_fake, fake)) / 2, mean(generator, fake)


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_losses_match_naive_formulas(kind: AdversarialKind) -> None:
    real, fake = random(2, 1, 5, 3, seed=1) * 3, random(2, 1, 5, 3, seed=2) * 3
    discriminator, generator = naive_adversarial(real, fake, kind)
    assert discriminator_loss(real, fake, kind).item() == pytest.approx(discriminator, rel=1e-9)
    assert generator_loss(fake, kind).item() == pytest.approx(generator, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_adversarial_losses_are_finite_at_extreme_logits(
    kind: AdversarialKind, value: float
) -> None:
    logits = torch.full((2, 1, 3, 3), value, dtype=torch.float16, requires_grad=True)
    loss = discriminator_loss(logits, logits, kind) + generator_loss(logits, kind)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_generator_loss_falls_as_the_discriminator_is_fooled(kind: AdversarialKind) -> None:
    rejected, accepted = torch.full((1, 1, 2, 2), -0.5), torch.full((1, 1, 2, 2), 0.5)
    assert generator_loss(accepted, kind) < generator_loss(rejected, kind)
    right = discriminator_loss(accepted, rejected, kind)
    wrong = discriminator_loss(rejected, accepted, kind)
    assert right < wrong


def naive_gram(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    gram = torch.zeros(batch, channels, channels, dtype=torch.float64)
    for b in range(batch):
        for i in range(channels):
            for j in range(channels):
                gram[b, i, j] = (x[b, i] * x[b, j]).sum() / (channels * height * width)
    return gram


def test_gram_matrix_matches_naive_formula() -> None:
    for x in random_features(3).values():
        torch.testing.assert_close(gram_matrix(x), naive_gram(x))


def test_gram_matrix_of_half_precision_features_does_not_overflow() -> None:
    x = torch.full((1, 2, 32, 32), 300.0, dtype=torch.float16)
    expected = torch.full((1, 2, 2), 300.0**2 / 2)
    torch.testing.assert_close(gram_matrix(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(gram_matrix(x.float()), expected)


def test_perceptual_and_style_losses_are_sums_over_layers_of_mean_differences() -> None:
    a, b = random_features(1), random_features(2)
    perceptual = sum((a[k] - b[k]).abs().mean().item() for k in a)
    style = sum((naive_gram(a[k]) - naive_gram(b[k])).abs().mean().item() for k in a)
    assert perceptual_loss(a, b).item() == pytest.approx(perceptual, rel=1e-9)
    assert style_loss(a, b).item() == pytest.approx(style, rel=1e-9)


@pytest.mark.parametrize("loss", [perceptual_loss, style_loss, feature_distance])
def test_feature_losses_compare_only_the_layers_asked_for(
    loss: Callable[..., Tensor],
) -> None:
    a, b = random_features(1), random_features(2)
    alone = loss({"relu2_1": a["relu2_1"]}, {"relu2_1": b["relu2_1"]}, layers=None)
    torch.testing.assert_close(loss(a, b, layers=["relu2_1"]), alone)


def test_feature_distance_matches_naive_formula() -> None:
    a, b = random_features(1), random_features(2)
    for features in (a, b):  # no all-zero pixel, where the naive formula divides by zero
        for x in features.values():
            x[:, 0] += 0.1
    expected = torch.zeros(2, dtype=torch.float64)
    for sample in range(2):
        for layer in a:
            _, _, height, width = a[layer].shape
            for y in range(height):
                for x in range(width):
                    u, v = a[layer][sample, :, y, x], b[layer][sample, :, y, x]
                    gap = u / u.norm() - v / v.norm()
                    expected[sample] += gap.dot(gap) / (height * width) / len(a)
    torch.testing.assert_close(feature_distance(a, b), expected, rtol=1e-6, atol=1e-9)


def test_feature_distance_is_zero_for_equal_and_two_for_orthogonal_features() -> None:
    a = torch.zeros(3, 2, 4, 5)
    b = a.clone()
    a[:, 0], b[:, 1] = 2.0, 7.0
    assert feature_distance({"x": a}, {"x": a}, layers=None).tolist() == [0, 0, 0]
    assert feature_distance({"x": a}, {"x": b}, layers=None).tolist() == pytest.approx([2, 2, 2])


def test_feature_distance_ignores_each_pixels_scale() -> None:
    a, b = random_features(1), random_features(2)
    scaled = {k: v * (1 + random(2, 1, *v.shape[2:]).abs()) for k, v in a.items()}
    torch.testing.assert_close(
        feature_distance(scaled, b), feature_distance(a, b), rtol=1e-4, atol=1e-6
    )


def test_feature_distance_of_a_sample_does_not_depend_on_its_batch() -> None:
    a, b = random_features(1), random_features(2)
    alone = feature_distance({k: v[1:] for k, v in a.items()}, {k: v[1:] for k, v in b.items()})
    torch.testing.assert_close(alone, feature_distance(a, b)[1:])


def test_feature_matching_sums_layers_and_leaves_the_real_side_without_gradient() -> None:
    fake = [random(2, 3, 5, 4, seed=i).requires_grad_() for i in range(2)]
    real = [random(2, 3, 5, 4, seed=i + 5).requires_grad_() for i in range(2)]
    loss = feature_matching_loss(fake, real)
    expected = sum((f - r).abs().mean().item() for f, r in zip(fake, real, strict=True))
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert all(x.grad is None for x in real)
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in fake)


def naive_total_variation(image: Tensor, mask: Tensor) -> float:
    batch, _, height, width = image.shape

    def counted(b: int, y: int, x: int) -> bool:
        near = mask[b, 0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        return bool(near.any())

    total = 0.0
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for v, u in ((y + 1, x), (y, x + 1)):
                    if v < height and u < width and counted(b, y, x) and counted(b, v, u):
                        total += (image[b, :, y, x] - image[b, :, v, u]).abs().sum().item()
    return total / image.numel()


@pytest.mark.parametrize("shape", SHAPES)
def test_total_variation_matches_naive_formula(shape: tuple[int, ...]) -> None:
    image = random(*shape)
    ones = torch.ones(shape[0], 1, *shape[2:])
    assert total_variation_loss(image).item() == pytest.approx(naive_total_variation(image, ones))
    mask = torch.zeros_like(ones)
    mask[-1, 0, 0, -1] = 1
    expected = naive_total_variation(image, mask)
    for given in (mask, mask.bool()):
        assert total_variation_loss(image, given).item() == pytest.approx(expected)


def test_total_variation_of_an_empty_mask_and_of_a_flat_image_is_zero() -> None:
    assert total_variation_loss(random(1, 3, 4, 5), torch.zeros(1, 1, 4, 5)).item() == 0
    assert total_variation_loss(torch.full((1, 3, 4, 5), 0.3)).item() == 0


def image_losses(mask: Tensor) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Every loss as a function of two tensors of one shape."""
    return {
        **{
            kind: lambda a, b, kind=kind: reconstruction_loss(a, b, mask, kind=kind)
            for kind in RECONSTRUCTION_KINDS
        },
        **{
            kind: lambda a, b, kind=kind: discriminator_loss(a, b, kind) + generator_loss(b, kind)
            for kind in KINDS
        },
        "perceptual": lambda a, b: perceptual_loss({"x": a}, {"x": b}),
        "style": lambda a, b: style_loss({"x": a}, {"x": b}),
        "feature_distance": lambda a, b: feature_distance({"x": a}, {"x": b}, layers=None).sum(),
        "feature_matching": lambda a, b: feature_matching_loss([a], [b]),
        "total_variation": lambda a, b: total_variation_loss(a, mask) + total_variation_loss(b),
    }


LOSS_NAMES = list(image_losses(torch.zeros(1)))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_gradients_match_finite_differences(name: str) -> None:
    loss = image_losses(random_mask(2, 3, 5))[name]
    a, b = random(2, 3, 3, 5, seed=1).requires_grad_(), random(2, 3, 3, 5, seed=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, b), a)
    if name != "feature_matching":  # its second argument is detached on purpose
        assert torch.autograd.gradcheck(lambda x: loss(b, x), a)


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loss_and_gradient_are_finite_for_black_equal_images(name: str, dtype: torch.dtype) -> None:
    a = torch.zeros(2, 3, 5, 4, dtype=dtype, requires_grad=True)
    loss = image_losses(torch.zeros(2, 1, 5, 4))[name](a, torch.zeros_like(a))
    loss.backward()
    assert loss.isfinite() and a.grad is not None and a.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    loss = image_losses(random_mask(2, 33, 31).float())[name]
    a, b = random(2, 3, 33, 31, seed=1).to(dtype), random(2, 3, 33, 31, seed=2).to(dtype)
    expected = image_losses(random_mask(2, 33, 31))[name](a.double(), b.double())
    assert loss(a, b).dtype == torch.float32
    torch.testing.assert_close(loss(a, b).double(), expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            loss(a.float(), b.float()).double(), expected, rtol=1e-5, atol=1e-6
        )


def test_shapes_that_would_broadcast_are_refused() -> None:
    image, mask = torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5)
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 5\] and \[1, 3, 4, 5\]"):
        reconstruction_loss(image, image[:1], mask)
    for wrong in (mask[:1], mask[:, 0], image, torch.zeros(2, 1, 1, 1)):
        with pytest.raises(ValueError, match=r"needs \[2, 1, 4, 5\]"):
            reconstruction_loss(image, image, wrong)
        with pytest.raises(ValueError, match=r"needs \[2, 1, 4, 5\]"):
            total_variation_loss(image, wrong)
    with pytest.raises(ValueError, match="same shape"):
        perceptual_loss({"x": image}, {"x": image[:1]})
    with pytest.raises(ValueError, match="same shape"):
        feature_matching_loss([image], [image[:1]])


def test_missing_layers_are_refused() -> None:
    features = {"relu1_1": torch.zeros(1, 2, 3, 3)}
    for loss in (perceptual_loss, style_loss):
        with pytest.raises(ValueError, match="relu2_1"):
            loss(features, features, layers=["relu2_1"])
        with pytest.raises(ValueError, match="one or more"):
            loss({}, {})
    with pytest.raises(ValueError, match="relu3_1"):
        feature_distance(features, features)
    with pytest.raises(ValueError, match="1 fake and 0 real"):
        feature_matching_loss([features["relu1_1"]], [])
    with pytest.raises(ValueError, match="at least one"):
        feature_matching_loss([], [])


def test_unknown_kinds_are_refused_with_the_choices() -> None:
    x, mask = torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"'l2'.*'l1_weighted'"):
        reconstruction_loss(x, x, mask, kind="l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'ralsgan'.*'hinge'"):
        generator_loss(x, "ralsgan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'ralsgan'.*'hinge'"):
        discriminator_loss(x, x, "ralsgan")  # type: ignore[arg-type]
