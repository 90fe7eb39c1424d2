"""Measures that need another network's weights: here a small network stands in for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from regionnorm.cli import main
from regionnorm.data import open_source
from regionnorm.imaging import mask_to_tensor
from regionnorm.losses import FEATURE_DISTANCE_LAYERS, feature_distance
from regionnorm.measuring import perceptual
from regionnorm.measuring.evaluate import evaluate
from regionnorm.measuring.perceptual import (
    FeatureDistance,
    Features,
    FrechetDistance,
    TextureDistance,
    available,
    make_metrics,
    texture_distance,
)
from regionnorm.measuring.report import Report
from regionnorm.nn.vgg import VGGFeatures

FEW = ((0.1, 0.2), (0.4, 0.5))
VGGMaps = Mapping[str, Tensor]
Values = npt.NDArray[np.float64]


@pytest.fixture
def vgg() -> VGGFeatures:
    torch.manual_seed(0)
    return VGGFeatures(FEATURE_DISTANCE_LAYERS)


class Colours(nn.Module):
    """Mean colours as features, for uint8 pictures."""

    num_features = 3

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.double().mean(dim=(2, 3))


def test_the_distance_is_that_of_the_features(vgg: VGGFeatures) -> None:
    result, photo = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    metric = FeatureDistance(vgg)
    expected = feature_distance(vgg(result), vgg(photo))
    assert torch.equal(metric(result, photo), expected)
    # A second photo does not meet the first one's features.
    assert metric(result, result).abs().max() == 0
    assert torch.equal(metric(photo, result), feature_distance(vgg(photo), vgg(result)))


def test_a_photo_goes_through_the_network_once_for_all_models(
    vgg: VGGFeatures, photo_folder: Callable[..., Path]
) -> None:
    seen: list[int] = []
    vgg.register_forward_hook(lambda *_: seen.append(1))
    evaluate(
        {name: lambda image, mask: image for name in "abc"},
        open_source(photo_folder(1)),
        size=32,
        intervals=FEW[:1],
        further={"feature_distance": FeatureDistance(vgg)},
    )
    assert len(seen) == 3 + 1  # three results, one photo


def test_evaluation_reports_what_else_is_measured(
    vgg: VGGFeatures, photo_folder: Callable[..., Path]
) -> None:
    def gray(image: Tensor, mask: Tensor) -> Tensor:
        return torch.full_like(image, 0.5)

    def nearly(image: Tensor, mask: Tensor) -> Tensor:
        return image + 0.4 * mask

    report = evaluate(
        {"gray": gray, "nearly": nearly},
        open_source(photo_folder(3, 48, 48)),
        size=48,
        intervals=FEW,
        further={
            "feature_distance": FeatureDistance(vgg),
            "texture_distance": TextureDistance(vgg),
        },
        fid=lambda: FrechetDistance(Colours()),
    )
    overall = {row.model: row for row in report.rows if row.interval is None}
    values = report.values["gray"]["feature_distance"]
    assert overall["gray"].extra["feature_distance"].mean == pytest.approx(
        sum(values) / len(values), abs=1e-5
    )
    assert all(row.fid is not None and row.fid >= 0 for row in report.rows)
    assert Report.from_json(report.to_json()) == report
    text = report.to_markdown()
    assert "feature distance (not LPIPS)" in text
    assert "texture distance" in text
    assert "FID" in text


def test_frechet_distance_is_zero_for_equal_sets_and_grows_with_the_shift() -> None:
    photos = torch.rand(8, 3, 8, 8)
    distances = []
    for shift in (0.0, 0.2, 0.4):
        metric = FrechetDistance(Colours())
        metric.update((photos + shift).clamp(0, 1), photos)
        distances.append(metric.compute())
    assert distances[0] == pytest.approx(0, abs=1e-3)
    assert distances[0] < distances[1] < distances[2]


def test_one_photo_has_no_frechet_distance() -> None:
    metric = FrechetDistance(Colours())
    metric.update(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    assert metric.compute() != metric.compute()  # nan


def test_a_set_of_one_photo_is_refused_or_left_out(photo_folder: Callable[..., Path]) -> None:
    def gray(image: Tensor, mask: Tensor) -> Tensor:
        return torch.full_like(image, 0.5)

    def measured(limit: int) -> Report:
        return evaluate(
            {"gray": gray},
            open_source(folder),
            size=48,
            intervals=FEW,
            limit=limit,
            fid=lambda: FrechetDistance(Colours()),
        )

    folder = photo_folder(2, 48, 48)
    with pytest.raises(ValueError, match="fid compares sets of photos, and there is 1"):
        measured(1)
    next(folder.iterdir()).write_bytes(b"no photo")
    report = measured(2)
    # Each interval is left with a photo, all together with two fills.
    assert [row.fid is None for row in report.rows] == [True, True, False]
    assert "NaN" not in report.to_json() and "| - |" in report.to_markdown()
    assert Report.from_json(report.to_json()) == report


def test_weights_that_are_here_are_used_without_being_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIONNORM_VGG", str(tmp_path / "vgg.pth"))
    assert available() == ["feature_distance", "texture_distance"]
    monkeypatch.delenv("REGIONNORM_VGG")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert available() == []


def test_an_unknown_measure_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from feature_distance, texture_distance, lpips"):
        make_metrics(["sharpness"])
    assert main(["evaluate", "ns", "--data", str(tmp_path), "--metric", "sharpness"]) == 2
    assert "'sharpness' is not known" in capsys.readouterr().err


def test_lpips_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> None:
        raise ImportError(f"{module} is missing; pip install 'regionnorm[{extra}]'")

    monkeypatch.setattr(perceptual, "require", missing)
    with pytest.raises(ImportError, match=r"regionnorm\[lpips\]"):
        make_metrics(["lpips"])


def test_lpips_is_torchmetrics_measured_photo_by_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    class Functional:
        @staticmethod
        def learned_perceptual_image_patch_similarity(
            result: Tensor, photo: Tensor, **options: object
        ) -> Tensor:
            asked.update(options)
            return (result - photo).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr(perceptual, "require", lambda module, *, extra: Functional)
    metric = make_metrics(["lpips"])["lpips"]
    results, photos = torch.rand(2, 3, 3, 8, 8)
    assert metric(results, photos, torch.ones(3, 1, 8, 8)).shape == (3,)
    assert asked == {"net_type": "alex", "reduction": "none", "normalize": True}


# --- texture distance -----------------------------------------------------------------------------


def moments(values: Values, weights: Values) -> tuple[float, float]:
    mean = np.average(values, weights=weights)
    return mean, np.sqrt(np.average((values - mean) ** 2, weights=weights))


def naive_texture_distance(a: VGGMaps, b: VGGMaps, hole: npt.NDArray[np.bool_]) -> float:
    """The definition in a plain loop: cells, layers, channels, statistics, in float64."""
    ys, xs = np.nonzero(hole)
    top, left = ys.min(), xs.min()
    height, width = ys.max() + 1 - top, xs.max() + 1 - left
    values = []
    for row in range(4):
        for column in range(4):
            y0, y1 = (top + round(i * height / 4) for i in (row, row + 1))
            x0, x1 = (left + round(i * width / 4) for i in (column, column + 1))
            if hole[y0:y1, x0:x1].mean() < 0.7:
                continue
            inside = np.zeros(hole.shape)
            inside[y0:y1, x0:x1] = hole[y0:y1, x0:x1]
            for stride, name in ((1, "relu1_1"), (2, "relu2_1"), (4, "relu3_1")):
                h, w = a[name].shape[2:]
                blocks = inside[: h * stride, : w * stride].reshape(h, stride, w, stride)
                weights = blocks.mean(axis=(1, 3))
                ratios = []
                for channel in range(a[name].shape[1]):
                    first, second = (
                        moments(maps[name][0, channel].numpy().astype(np.float64), weights)
                        for maps in (a, b)
                    )
                    for p, q in zip(first, second, strict=True):
                        ratios.append((2 * p * q + 0.001) / (p * p + q * q + 0.001))
                values.append(np.mean(ratios))
    return 1 - float(np.mean(values))


def blob(height: int, width: int) -> npt.NDArray[np.bool_]:
    """A disc: cells in the corners of its box are not full."""
    y, x = np.mgrid[:height, :width]
    disc: npt.NDArray[np.bool_] = (y - 31) ** 2 + (x - 30) ** 2 < 23**2
    return disc


def test_texture_distance_matches_a_naive_loop(vgg: VGGFeatures) -> None:
    hole = blob(67, 62)
    result, photo = torch.rand(1, 3, 67, 62), torch.rand(1, 3, 67, 62) ** 2
    a, b = vgg(result), vgg(photo)
    assert texture_distance(a, b, mask_to_tensor(hole)).item() == pytest.approx(
        naive_texture_distance(a, b, hole), abs=1e-6
    )


def test_texture_distance_punishes_blur_and_not_another_piece(vgg: VGGFeatures) -> None:
    texture = torch.rand(1, 3, 64, 128)
    photo, piece = texture[..., :64], texture[..., 64:]
    blurred = nn.functional.avg_pool2d(photo, 5, stride=1, padding=2)
    metric, mask = TextureDistance(vgg), mask_to_tensor(blob(64, 64))
    moved, soft = (float(metric(result, photo, mask)) for result in (piece, blurred))
    assert float(metric(photo, photo, mask)) == pytest.approx(0, abs=1e-6)
    assert 0 < moved < 0.2 * soft


def test_texture_distance_of_a_sample_does_not_depend_on_its_batch(vgg: VGGFeatures) -> None:
    result, photo = torch.rand(2, 3, 48, 48), torch.rand(2, 3, 48, 48)
    mask = torch.zeros(2, 1, 48, 48)
    mask[0, :, 8:40, 4:20], mask[1, :, 3:9, 30:45] = 1, 1
    together = texture_distance(vgg(result), vgg(photo), mask)
    for i in range(2):
        alone = texture_distance(vgg(result[i : i + 1]), vgg(photo[i : i + 1]), mask[i : i + 1])
        assert together[i].item() == pytest.approx(alone.item(), abs=1e-6)


@pytest.mark.parametrize("side", [5, 6, 7, 61])
def test_texture_distance_is_defined_for_every_hole(vgg: VGGFeatures, side: int) -> None:
    result, photo = torch.rand(1, 3, side, side), torch.rand(1, 3, side, side)
    thin = mask_to_tensor(np.eye(side, dtype=bool))  # no cell is 70 % hole
    corner = torch.zeros(1, 1, side, side)
    corner[..., -1, -1] = 1  # beyond the last whole feature
    metric = TextureDistance(vgg)
    for mask in (thin, corner, torch.ones(1, 1, side, side)):
        assert 0 < float(metric(result, photo, mask)) <= 1
    assert float(metric(result, photo, torch.zeros(1, 1, side, side))) == 0


def test_measures_share_the_features_of_a_picture_while_it_is_in_use() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, pictures: Tensor) -> dict[str, Tensor]:
            self.calls += 1
            return dict.fromkeys(FEATURE_DISTANCE_LAYERS, pictures + 1)

    network = Counting()
    features = Features(network)
    metrics = FeatureDistance(features), TextureDistance(features)
    photo, mask = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    for calls in (2, 3):  # the photo's once, each result's once
        result = torch.rand(1, 3, 8, 8)
        assert all(float(metric(result, photo, mask)) > 0 for metric in metrics)
        assert network.calls == calls
    kept = weakref.ref(features(result)["relu1_1"])
    assert kept() is not None
    del result
    assert kept() is None
