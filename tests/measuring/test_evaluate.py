"""Models and photos in, a table out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from regionnorm.checkpoints.weights import save_weights
from regionnorm.data import ImageSource, open_source
from regionnorm.imaging import image_to_tensor
from regionnorm.masks import INTERVALS, MaskFolder, evaluation_mask
from regionnorm.measuring.evaluate import evaluate, resolve_model, resolve_models
from regionnorm.measuring.metrics import METRICS, PSNR_CAP, compute_metrics
from regionnorm.measuring.report import Report
from regionnorm.models import create_model

SIZE = 48
FEW = ((0.1, 0.2), (0.4, 0.5))


def keep(image: Tensor, mask: Tensor) -> Tensor:
    """Leave the hole as it comes, which is black."""
    return image


def gray(image: Tensor, mask: Tensor) -> Tensor:
    return torch.full_like(image, 0.5)


class Recorder:
    """Keeps what it was called with, and answers with black."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.masks: list[Tensor] = []

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        self.images += list(image)
        self.masks += list(mask)
        return torch.zeros_like(image)


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> ImageSource:
    return open_source(photo_folder(3, SIZE, SIZE))


def run(models: dict[str, Callable[..., Tensor]], source: ImageSource, **options: object) -> Report:
    return evaluate(models, source, **{"size": SIZE, "intervals": FEW, **options})


def test_models_never_see_what_is_under_the_hole(photos: ImageSource) -> None:
    model = Recorder()
    run({"model": model}, photos)
    assert model.images
    for image, mask in zip(model.images, model.masks, strict=True):
        assert (image * mask).abs().max() == 0
        assert (image * (1 - mask)).max() > 0


def test_a_perfect_model_scores_perfectly_everywhere(tmp_path: Path) -> None:
    for shade in range(3):
        Image.new("RGB", (SIZE, SIZE), (128, 128, 128)).save(tmp_path / f"{shade}.png")

    def know(image: Tensor, mask: Tensor) -> Tensor:
        return torch.full_like(image, 128 / 255)

    report = run({"perfect": know}, open_source(tmp_path), intervals=INTERVALS)
    assert len(report.rows) == 7
    for row in report.rows:
        assert row.psnr.mean == row.psnr.low == row.psnr.high == PSNR_CAP
        assert row.ssim.mean == 1
        assert row.l1.mean == 0


def test_known_pixels_never_count_as_errors(photos: ImageSource) -> None:
    def spoil_known(image: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask > 0, image, 1 - image)

    report = run({"black": keep, "spoiled": spoil_known}, photos)
    assert report.values["spoiled"] == report.values["black"]


def test_values_equal_a_plain_loop(photos: ImageSource) -> None:
    report = run({"gray": gray}, photos, seed=3)
    position = 0
    for number in range(3):
        pixels = np.asarray(photos.read(number), dtype=np.float32) / 255
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        for interval in FEW:
            mask = torch.from_numpy(evaluation_mask(number, interval, SIZE, seed=3))
            expected = compute_metrics(torch.where(mask, 0.5, image), image)
            for name in METRICS:
                actual = report.values["gray"][name][position]
                assert actual == pytest.approx(expected[name].item(), abs=1e-6)
            position += 1
    assert position == len(report.cases)


def test_larger_holes_score_worse(photos: ImageSource) -> None:
    rows = run({"gray": gray}, photos, intervals=INTERVALS).rows[:-1]
    means = [row.psnr.mean for row in rows]
    assert means == sorted(means, reverse=True)


def test_every_photo_is_filled_once_in_every_interval(photos: ImageSource) -> None:
    report = run({"gray": gray}, photos, intervals=INTERVALS)
    pairs = [(case.photo, case.interval) for case in report.cases]
    assert pairs == [(photos.name(i), interval) for i in range(3) for interval in INTERVALS]
    for case in report.cases:
        assert case.interval[0] < case.area <= case.interval[1]


def test_all_models_get_the_same_photos_and_masks(photos: ImageSource) -> None:
    first, second = Recorder(), Recorder()
    run({"first": first, "second": second}, photos, batch_size=4)
    assert len(first.masks) == 6
    assert all(map(torch.equal, first.masks, second.masks))
    assert all(map(torch.equal, first.images, second.images))
    assert {tuple(image.shape) for image in first.images} == {(3, SIZE, SIZE)}
    assert all(set(mask.unique().tolist()) == {0.0, 1.0} for mask in first.masks)


def test_batch_size_and_company_do_not_change_the_values(photos: ImageSource) -> None:
    alone = run({"gray": gray}, photos, batch_size=1)
    together = run({"black": keep, "gray": gray}, photos, batch_size=5)
    assert together.values["gray"] == alone.values["gray"]


def test_a_second_run_returns_the_same_report_and_another_seed_other_masks(
    photos: ImageSource,
) -> None:
    report = run({"gray": gray}, photos)
    assert run({"gray": gray}, photos) == report
    assert run({"gray": gray}, photos, seed=1).values != report.values


def test_limit_takes_the_first_photos(photos: ImageSource) -> None:
    whole, part = run({"gray": gray}, photos), run({"gray": gray}, photos, limit=2)
    assert part.cases == whole.cases[:4]
    assert part.values["gray"]["psnr"] == whole.values["gray"]["psnr"][:4]
    assert run({"gray": gray}, photos, limit=99) == whole


def test_difference_to_is_paired_by_photo_and_mask(photos: ImageSource) -> None:
    report = run({"gray": gray, "black": keep}, photos, difference_to="gray")
    for row in report.rows:
        if row.model == "gray":
            assert row.difference is None
        else:
            other = next(r for r in report.rows if (r.model, r.interval) == ("gray", row.interval))
            assert row.difference is not None
            assert row.difference.mean == pytest.approx(row.psnr.mean - other.psnr.mean, abs=2e-6)


def test_progress_counts_up_to_the_total(photos: ImageSource) -> None:
    calls: list[tuple[int, int]] = []
    run(
        {"gray": gray, "black": keep},
        photos,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == sorted(calls)
    assert calls[-1] == (12, 12)


def test_larger_photos_are_scaled_and_cropped_around_the_centre(tmp_path: Path) -> None:
    # Left and right thirds are black, the centre square is white.
    wide = np.zeros((96, 288, 3), np.uint8)
    wide[:, 96:192] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    model = Recorder()
    run({"model": model}, open_source(tmp_path))
    assert model.images[0].shape == (3, SIZE, SIZE)
    known = (model.images[0] * (1 - model.masks[0]))[:, :, 2:-2].sum()
    assert known > 0.98 * (3 * (1 - model.masks[0])[:, :, 2:-2].sum())


def test_without_a_size_photos_of_all_shapes_keep_theirs(
    tmp_path: Path, make_photo: Callable[..., Image.Image]
) -> None:
    shapes = [(40, 40), (40, 64), (64, 40), (64, 40)]
    for number, (width, height) in enumerate(shapes):
        make_photo(width, height, seed=number).save(tmp_path / f"{number}.png")
    model = Recorder()
    report = run({"model": model}, open_source(tmp_path), size=None)
    assert [tuple(image.shape[1:]) for image in model.images[::2]] == [s[::-1] for s in shapes]
    assert all(case.interval[0] < case.area <= case.interval[1] for case in report.cases)
    assert report.size is None
    assert "their own size" in report.to_markdown()


def test_unusable_photos_are_left_out_and_named(photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder(2, SIZE, SIZE)
    (folder / "broken.png").write_bytes(b"not a photo")
    Image.new("RGB", (40, 12)).save(folder / "tiny.png")
    calls: list[tuple[int, int]] = []
    report = run(
        {"gray": gray},
        open_source(folder),
        size=None,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert {Path(case.photo).name for case in report.cases} == {"photo-0.png", "photo-1.png"}
    assert len(report.skipped) == 2
    assert "broken.png: cannot be read" in report.skipped[0]
    assert report.skipped[1].endswith("tiny.png: 40x12 px is too small, 16 are needed")
    assert calls[-1] == (8, 8)


def test_only_unusable_photos_are_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a photo")
    with pytest.raises(ValueError, match=r"none of 1 photos .*broken.png: cannot be read"):
        run({"gray": gray}, open_source(tmp_path))


def save_masks(folder: Path, shares: list[float], side: int = 96) -> MaskFolder:
    """White bars of the given shares at the left of black masks."""
    folder.mkdir()
    for number, share in enumerate(shares):
        mask = np.zeros((side, side), np.uint8)
        mask[:, : round(share * side)] = 255
        Image.fromarray(mask).save(folder / f"{number}.png")
    return MaskFolder(folder)


def test_mask_files_are_used_in_the_interval_of_their_area(
    photos: ImageSource, tmp_path: Path
) -> None:
    masks = save_masks(tmp_path / "masks", [0.15, 0.45, 0.15, 0.95, 0.0])
    model = Recorder()
    report = run({"model": model}, photos, masks=masks, intervals=INTERVALS)
    # Two of six intervals have files; the third photo takes the first file of each again.
    assert [case.interval for case in report.cases] == [(0.1, 0.2), (0.4, 0.5)] * 3
    assert [row.interval for row in report.rows] == [(0.1, 0.2), (0.4, 0.5), None]
    for case, mask in zip(report.cases, model.masks, strict=True):
        assert case.area == pytest.approx(mask.mean().item(), abs=1e-6)
        assert case.interval[0] < case.area <= case.interval[1]
    assert str(tmp_path / "masks") in report.masks


def test_mask_files_outside_every_interval_are_an_error(
    photos: ImageSource, tmp_path: Path
) -> None:
    masks = save_masks(tmp_path / "masks", [0.9, 1.0])
    with pytest.raises(ValueError, match=r"none of the 2 masks .* 10-20 %, 40-50 %"):
        run({"gray": gray}, photos, masks=masks)


def test_a_wrong_shape_and_wrong_values_name_the_model(photos: ImageSource) -> None:
    with pytest.raises(ValueError, match=r"model 'cut' returned shape \[6, 3, 47, 48\]"):
        run({"cut": lambda image, mask: image[:, :, 1:]}, photos)
    with pytest.raises(ValueError, match=r"model 'nan' .* not finite for .*photo-0.png"):
        run({"nan": lambda image, mask: image / 0 * 0}, photos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "no model"),
        ({"intervals": ()}, "no interval"),
        ({"intervals": ((0.2, 0.1),)}, r"\(0.2, 0.1\)"),
        ({"size": 8}, "at least 16 pixels or None, got 8"),
        ({"size": 48, "preset": "edgeconnect"}, "at least 51 pixels or None, got 48"),
        ({"limit": 0}, "limit .* got 0"),
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"preset": "best"}, "unknown metric preset 'best'"),
        ({"difference_to": "ns"}, "'ns' is not among the models: gray"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(
    photos: ImageSource, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(**{"models": {"gray": gray}, "source": photos, **options})
    assert "\n" not in str(caught.value)


def test_classical_fillers_beat_plain_gray(photos: ImageSource) -> None:
    models = {"gray": gray, **resolve_models(["telea", "ns", "biharmonic"], "cpu")}
    report = run(models, photos, difference_to="gray", intervals=((0.0, 0.1), (0.1, 0.2)))
    overall = [row for row in report.rows if row.interval is None]
    assert [row.model for row in overall] == ["gray", "telea", "ns", "biharmonic"]
    assert all(row.difference is not None and row.difference.low > 1 for row in overall[1:])


def test_a_weights_file_is_evaluated_under_its_name(photos: ImageSource, tmp_path: Path) -> None:
    network = create_model("rn", width=8, blocks=1)
    save_weights(network, tmp_path / "small.safetensors")
    name, filler = resolve_model(str(tmp_path / "small.safetensors"), "cpu")
    assert name == "small"
    report = run({name: filler, "black": keep}, photos)
    assert all(value < PSNR_CAP for value in report.values["small"]["psnr"])


def test_weights_files_of_one_name_go_by_their_path(tmp_path: Path) -> None:
    specs = [str(tmp_path / run / "best.safetensors") for run in ("a", "b")]
    for spec in specs:
        save_weights(create_model("rn", width=8, blocks=1), spec)
    assert list(resolve_models([*specs, "ns"], "cpu")) == ["best", specs[1], "ns"]


def test_no_network_of_the_users_is_shown_under_the_name_of_another(tmp_path: Path) -> None:
    specs = []
    for name in ("fast", "ns", "exemplar"):
        specs.append(str(tmp_path / f"{name}.safetensors"))
        save_weights(create_model("rn", width=8, blocks=1), specs[-1])
    models = resolve_models([*specs, "fast", "ns"], "cpu")
    assert list(models) == [*specs, "fast", "ns"]
    assert list(resolve_models(["fast", specs[0]], "cpu")) == ["fast", specs[0]]
    assert list(resolve_models([specs[0]], "cpu")) == [specs[0]]


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'rn' comes without trained weights; give default"):
        resolve_model("rn")


def test_an_unknown_model_is_named_with_what_would_work() -> None:
    with pytest.raises(FileNotFoundError, match=r"no file 'nothing'; give default.*telea, ns"):
        resolve_model("nothing")


def test_a_model_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'ns' is given twice"):
        resolve_models(["ns", "ns"])


def test_completion_can_follow_any_model_and_stand_alone(
    make_photo: Callable[..., Image.Image],
) -> None:
    name, completed = resolve_model("ns+completion")
    alone = resolve_model("exemplar")
    _, plain = resolve_model("ns")
    image = image_to_tensor(make_photo(96, 96))
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 30:60, 30:60] = 1
    shown = image * (1 - mask)
    result = completed(shown, mask)
    assert (name, alone[0]) == ("ns+completion", "exemplar")
    for filled in (result, alone[1](shown, mask)):
        assert torch.equal(filled * (1 - mask), shown)
        assert not torch.equal(filled, plain(shown, mask))
    with pytest.raises(FileNotFoundError, match="nothing"):
        resolve_model("nothing+completion")


def test_damaged_mask_files_are_passed_over_and_told(photos: ImageSource, tmp_path: Path) -> None:
    save_masks(tmp_path / "masks", [0.15])
    (tmp_path / "masks" / "a.png").write_bytes(b"no image")
    report = run({"gray": gray}, photos, masks=MaskFolder(tmp_path / "masks"))
    assert report.masks.endswith("masks, 1 of which are left out: damaged, or photos")
    assert {case.interval for case in report.cases} == {(0.1, 0.2)}
