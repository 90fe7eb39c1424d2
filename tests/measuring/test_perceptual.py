"""Measures that need another network's weights: here a small network stands in for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from regionnorm.cli import main
from regionnorm.data import open_source
from regionnorm.losses import FEATURE_DISTANCE_LAYERS, feature_distance
from regionnorm.measuring import perceptual
from regionnorm.measuring.evaluate import evaluate
from regionnorm.measuring.perceptual import (
    FeatureDistance,
    FrechetDistance,
    available,
    make_metrics,
)
from regionnorm.measuring.report import Report
from regionnorm.nn.vgg import VGGFeatures

FEW = ((0.1, 0.2), (0.4, 0.5))


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
        further={"feature_distance": FeatureDistance(vgg)},
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


def test_weights_that_are_here_are_used_without_being_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIONNORM_VGG", str(tmp_path / "vgg.pth"))
    assert available() == ["feature_distance"]
    monkeypatch.delenv("REGIONNORM_VGG")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert available() == []


def test_an_unknown_measure_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from feature_distance, lpips"):
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
    assert metric(torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)).shape == (3,)
    assert asked == {"net_type": "alex", "reduction": "none", "normalize": True}
