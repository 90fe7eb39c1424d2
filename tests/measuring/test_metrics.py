"""PSNR, SSIM and l1 against scikit-image and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from regionnorm.measuring.metrics import (
    PRESETS,
    PSNR_CAP,
    MetricPreset,
    compute_metrics,
    get_preset,
    l1_percent,
    psnr,
    ssim,
)


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two 8-bit photos ``[3, 3, 61, 72]`` as floats, and distorted copies off the 8-bit grid."""
    target = torch.randint(0, 256, (3, 3, 61, 72), generator=generator) / 255
    noise = 0.1 * torch.randn(target.shape, generator=generator)
    return (target + noise).clamp(0, 1), target


def levels(images: Tensor, *, truncate: bool = False) -> np.ndarray:
    """uint8 ``[B, H, W, C]``, as a PNG file would hold them."""
    scaled = images.permute(0, 2, 3, 1).numpy() * 255
    return (scaled if truncate else scaled.round()).astype(np.uint8)


def channels_last(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).double().numpy()


def assert_close(actual: Tensor, expected: list[float], tolerance: float = 1e-6) -> None:
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


def test_psnr_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    expected = [
        peak_signal_noise_ratio(y, x, data_range=1)
        for x, y in zip(channels_last(output), channels_last(target), strict=True)
    ]
    assert_close(psnr(output, target), expected)


def test_psnr_of_equal_images_is_the_documented_cap() -> None:
    image = torch.rand(2, 3, 16, 16)
    assert psnr(image, image).tolist() == [PSNR_CAP, PSNR_CAP]


def test_psnr_of_black_against_white_is_zero() -> None:
    assert psnr(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)).item() == 0


@pytest.mark.parametrize("window_size", [3, 7, 11, 51])
def test_ssim_with_a_uniform_window_equals_scikit_image(
    pair: tuple[Tensor, Tensor], window_size: int
) -> None:
    output, target = pair
    expected = [
        structural_similarity(x, y, win_size=window_size, channel_axis=-1, data_range=1)
        for x, y in zip(channels_last(output), channels_last(target), strict=True)
    ]
    assert_close(ssim(output, target, window_size=window_size), expected)


def test_ssim_with_a_gaussian_window_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    expected = [
        structural_similarity(
            x,
            y,
            channel_axis=-1,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(channels_last(output), channels_last(target), strict=True)
    ]
    assert_close(ssim(output, target, window="gaussian"), expected)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_equals_a_loop_over_windows(window: str, generator: torch.Generator) -> None:
    output = torch.rand(1, 1, 13, 14, generator=generator, dtype=torch.float64)
    target = torch.rand(1, 1, 13, 14, generator=generator, dtype=torch.float64)
    offset = np.arange(11) - 5
    weights = np.ones(11) if window == "uniform" else np.exp(-(offset**2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    unbiased = 121 / 120 if window == "uniform" else 1
    values = []
    for top in range(3):
        for left in range(4):
            x = output[0, 0, top : top + 11, left : left + 11].numpy()
            y = target[0, 0, top : top + 11, left : left + 11].numpy()
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            var_x = unbiased * (weights * (x - mean_x) ** 2).sum()
            var_y = unbiased * (weights * (y - mean_y) ** 2).sum()
            cov = unbiased * (weights * (x - mean_x) * (y - mean_y)).sum()
            luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
            values.append(luminance * (2 * cov + 9e-4) / (var_x + var_y + 9e-4))
    assert_close(ssim(output, target, window=window), [float(np.mean(values))], 1e-12)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_ssim_is_one_for_equal_images(window: str) -> None:
    image = torch.rand(2, 3, 20, 20)
    assert_close(ssim(image, image, window=window), [1.0, 1.0], 1e-12)


def test_ssim_takes_an_image_as_small_as_its_window(generator: torch.Generator) -> None:
    image = torch.rand(1, 3, 11, 11, generator=generator)
    assert_close(ssim(image, image), [1.0], 1e-12)


def test_l1_is_the_mean_absolute_error_in_percent(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    difference = np.abs(channels_last(output) - channels_last(target))
    assert_close(l1_percent(output, target), list(100 * difference.mean(axis=(1, 2, 3))))


def test_channel_mean_l1_lets_opposite_errors_cancel() -> None:
    target = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
    output = target + torch.tensor([0.1, -0.1, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    assert_close(l1_percent(output, target, definition="channel-mean"), [0.0])
    assert_close(l1_percent(output, target), [100 * 0.2 / 3])


def test_relative_l1_divides_by_the_sum_of_both_images() -> None:
    output, target = torch.full((1, 1, 16, 16), 0.25), torch.full((1, 1, 16, 16), 0.75)
    assert_close(l1_percent(output, target, definition="relative"), [50.0])


def test_relative_l1_of_two_black_images_is_zero() -> None:
    black = torch.zeros(1, 1, 16, 16)
    assert l1_percent(black, black, definition="relative").item() == 0


def test_default_preset_measures_rounded_8_bit_rgb(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    measured = compute_metrics(output, target)
    photos = list(zip(levels(output), levels(target), strict=True))
    assert_close(
        measured["psnr"], [peak_signal_noise_ratio(y, x, data_range=255) for x, y in photos]
    )
    similarity = [
        structural_similarity(x, y, win_size=11, channel_axis=-1, data_range=255) for x, y in photos
    ]
    assert_close(measured["ssim"], similarity)
    error = [100 * np.abs(x.astype(float) - y).mean() / 255 for x, y in photos]
    assert_close(measured["l1"], error)


def test_released_preset_repeats_the_released_evaluation(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    measured = compute_metrics(output, target, "released")
    photos = list(zip(levels(output, truncate=True), levels(target, truncate=True), strict=True))
    assert_close(
        measured["psnr"], [peak_signal_noise_ratio(y, x, data_range=255) for x, y in photos]
    )
    similarity = [
        structural_similarity(x, y, win_size=11, channel_axis=-1, data_range=255) for x, y in photos
    ]
    assert_close(measured["ssim"], similarity)
    error = [100 * np.abs((x.mean(axis=2) - y.mean(axis=2)) / 255).mean() for x, y in photos]
    assert_close(measured["l1"], error)


def test_edgeconnect_preset_measures_gray_with_a_window_of_51(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    measured = compute_metrics(output, target, "edgeconnect")
    photos = [
        (rgb2gray(x / 255), rgb2gray(y / 255))
        for x, y in zip(levels(output, truncate=True), levels(target, truncate=True), strict=True)
    ]
    assert_close(measured["psnr"], [peak_signal_noise_ratio(y, x, data_range=1) for x, y in photos])
    similarity = [structural_similarity(x, y, win_size=51, data_range=1) for x, y in photos]
    assert_close(measured["ssim"], similarity)
    assert_close(measured["l1"], [100 * np.abs(x - y).sum() / (x + y).sum() for x, y in photos])


def test_deepfill_preset_uses_a_gaussian_window(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    similarity = [
        structural_similarity(
            x,
            y,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for x, y in zip(levels(output, truncate=True), levels(target, truncate=True), strict=True)
    ]
    assert_close(compute_metrics(output, target, "deepfill")["ssim"], similarity)


@pytest.mark.parametrize("quantise", ["round", "truncate"])
def test_quantising_returns_every_8_bit_level_unchanged(quantise: str) -> None:
    ramp = (torch.arange(256).view(1, 1, 16, 16) / 255).expand(1, 3, 16, 16)
    exact = MetricPreset(quantise="none")
    rough = MetricPreset(quantise=quantise)
    off = (ramp + 0.2 / 255).clamp(max=1)  # both ways of rounding bring this back
    assert compute_metrics(off, ramp, rough)["l1"].item() == 0
    assert compute_metrics(off, ramp, exact)["l1"].item() > 0


@pytest.mark.parametrize("preset", list(PRESETS))
def test_equal_photos_score_perfectly_under_every_preset(preset: str) -> None:
    image = torch.rand(2, 3, 64, 64)
    measured = compute_metrics(image, image, preset)
    assert_close(measured["psnr"], [PSNR_CAP] * 2)
    assert_close(measured["ssim"], [1.0] * 2)
    assert_close(measured["l1"], [0.0] * 2)


def test_each_pair_is_measured_for_itself(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    together = compute_metrics(output, target)
    for i in range(len(output)):
        alone = compute_metrics(output[i : i + 1], target[i : i + 1])
        assert all(torch.equal(alone[name][0], together[name][i]) for name in together)


def test_half_precision_results_are_measured_in_float64(pair: tuple[Tensor, Tensor]) -> None:
    output, target = pair
    measured = compute_metrics(output.half(), target)
    reference = compute_metrics(output, target)
    assert measured["psnr"].dtype == torch.float64
    assert_close(measured["psnr"], reference["psnr"].tolist(), 0.01)


def test_names_and_definitions_of_presets_are_both_taken() -> None:
    own = MetricPreset(l1="relative")
    assert get_preset(own) is own
    assert get_preset("released") is PRESETS["released"]
    with pytest.raises(ValueError, match="unknown metric preset 'best'; choose one of default"):
        get_preset("best")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: psnr(x, x[..., 1:]), r"got \[1, 3, 16, 16\] and \[1, 3, 16, 15\]"),
        (lambda x: psnr(x[0], x[0]), r"\[B, C, H, W\]"),
        (lambda x: psnr(x.byte(), x.byte()), "divide 8-bit values by 255"),
        (lambda x: compute_metrics(x[:, :1], x[:, :1]), "got 1 channels"),
        (lambda x: compute_metrics(x, x, "edgeconnect"), "51 pixels does not fit .* 16x16"),
        (lambda x: ssim(x, x, window_size=4), "odd window"),
        (lambda x: ssim(x, x, window="disc"), "unknown SSIM window 'disc'"),
        (lambda x: l1_percent(x, x, definition="max"), "unknown l1 definition 'max'"),
    ],
)
def test_wrong_input_is_named_in_one_line(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(torch.rand(1, 3, 16, 16))
    assert "\n" not in str(caught.value)
