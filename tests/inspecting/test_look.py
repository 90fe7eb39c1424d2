"""The inside of a network is drawn for a user's own photo and any weights."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from regionnorm.checkpoints.weights import save_weights
from regionnorm.inspecting.layers import norm_layers
from regionnorm.inspecting.look import (
    MOST_PIXELS,
    default_layers,
    draw_inside,
    list_layers,
    look_inside,
    pca_picture,
    visualize,
    visualize_photo,
)
from regionnorm.models import create_model

Maker = Callable[..., Image.Image]
RunCli = Callable[..., tuple[int, str, str]]


def inputs(height: int = 40, width: int = 48) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(1, 1, height, width)
    mask[..., 10:24, 12:30] = 1
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, height, width, generator=generator), mask


@pytest.fixture
def files(tmp_path: Path, make_photo: Maker, make_mask: Maker) -> tuple[Path, Path]:
    photo, mask = tmp_path / "photo.jpg", tmp_path / "mask.png"
    make_photo(72, 52).save(photo)
    make_mask(72, 52).save(mask)
    return photo, mask


# --- looking -------------------------------------------------------------------------------------


def test_default_layers_are_the_last_rn_b_figure_8_and_the_last_two() -> None:
    model = create_model("rn", width=2)
    assert [name.removesuffix(".layer") for name in default_layers(model, *inputs())] == [
        "encoder_norms.2",
        "residual.5.first_norm",
        "residual.6.second_norm",
        "residual.7.second_norm",
        "decoder_norms.0",
        "decoder_norms.1",
    ]


@pytest.mark.parametrize("name", ["baseline-bn", "rn-arch3", "rn-partial-conv", "rn-gated-conv"])
def test_other_networks_have_default_layers_too(name: str) -> None:
    model = create_model(name, width=4)
    chosen = default_layers(model, *inputs())
    assert 4 <= len(chosen) == len(set(chosen)) <= 6
    assert set(chosen) <= {layer for layer, _ in norm_layers(model)}


def test_last_layer_is_the_one_that_runs_last() -> None:
    # A U-Net's decoder runs from its deepest level upwards.
    model = create_model("rn-partial-conv", width=2)
    assert default_layers(model, *inputs())[-1] == "decoder_norms.1.layer"


def test_maps_are_cut_to_the_photo_where_the_network_pads_it() -> None:
    model = create_model("rn-partial-conv", width=2, levels=3)
    inside = look_inside(model, *inputs(41, 50), ["encoder_norms.1", "decoder_norms.1"])
    assert [tuple(view.mask.shape) for view in inside.layers] == [(10, 12), (20, 25)]
    assert inside.layers[1].response is not None
    assert inside.layers[1].response.shape == (20, 25)
    assert inside.encoded is not None
    assert inside.encoded.shape[1:] == (5, 6)


def test_fill_keeps_the_known_pixels() -> None:
    image, mask = inputs()
    inside = look_inside(create_model("rn", width=2, blocks=1), image, mask)
    assert torch.equal(inside.fill * (1 - mask), image * (1 - mask))


def test_encoder_result_is_what_the_residual_blocks_are_given() -> None:
    model = create_model("rn", width=2, blocks=1).eval()
    given = []
    handle = model.residual[0].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    inside = look_inside(model, *inputs(), ["decoder_norms.1"])
    handle.remove()
    assert inside.encoded is not None
    assert torch.equal(inside.encoded, given[-1][0])
    assert not any(module._forward_hooks for module in model.modules())


def test_overlap_is_the_regions_share_of_hole_and_of_known_pixels() -> None:
    model = create_model("rn", width=2, blocks=1)
    view = look_inside(model, *inputs(), ["encoder_norms.0"]).layers[0]
    assert view.overlap == (1.0, 0.0)  # RN-B's region is the hole
    plain = look_inside(create_model("baseline-in", width=2, blocks=1), *inputs()).layers[0]
    assert np.isnan(plain.overlap).all()


def test_several_photos_and_networks_without_norm_are_refused() -> None:
    image, mask = inputs()
    with pytest.raises(ValueError, match="give one of each"):
        look_inside(create_model("rn", width=2, blocks=1), image.expand(2, -1, -1, -1), mask)
    with pytest.raises(ValueError, match=r"baseline-none.*no normalisation layer"):
        look_inside(create_model("baseline-none", width=2, blocks=1), image, mask)


def test_principal_components_of_features_in_three_directions_are_those_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(3, 30, 20, generator=generator) * torch.tensor([9.0, 3, 1])[:, None, None]
    directions = torch.linalg.qr(torch.randn(8, 3, generator=generator)).Q
    picture = pca_picture(torch.einsum("cd,dhw->chw", directions, signals))
    assert picture.shape == (30, 20, 3)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
    for index in range(3):
        pair = torch.stack((picture[..., index].flatten(), signals[index].flatten()))
        assert abs(float(torch.corrcoef(pair)[0, 1])) > 0.95
    assert pca_picture(torch.zeros(1, 4, 5)).shape == (4, 5, 3)


# --- drawing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rn", "baseline-in", "rn-gated-conv"])
def test_figure_has_a_row_for_the_photo_and_for_each_layer(name: str) -> None:
    options = {} if "gated" in name else {"blocks": 1}
    model = create_model(name, width=4, threshold=0.5, **options)
    layers = [norm_layers(model)[index][0] for index in (0, -1)]
    figure = visualize(model, *inputs(), layers)
    assert len(figure.axes) == 3 * 6
    shown = {text.get_text() for text in figure.texts}
    assert {text.split("\n")[0] for text in shown} == {n.removesuffix(".layer") for n in layers}
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=30)
    assert file.tell() > 1000


def test_titles_tell_how_the_region_and_the_hole_overlap() -> None:
    model = create_model("rn", width=4, blocks=1, threshold=0.0)
    figure = draw_inside(look_inside(model, *inputs(), ["residual.0.first_norm"]), title="mine")
    titles = [ax.get_title() for ax in figure.axes]
    assert "region: response > 0\n100% of the hole, 100% of the known" in titles
    assert "gamma (scale is 1 + gamma)" in titles
    assert any("mine" in text.get_text() for ax in figure.axes for text in ax.texts)


def test_hole_that_vanishes_at_a_small_layer_is_drawn_without_an_outline() -> None:
    image, mask = inputs()
    mask = torch.zeros_like(mask)
    mask[..., 1, 1] = 1
    model = create_model("rn", width=2, blocks=1)
    assert len(visualize(model, image, mask, ["residual.0.first_norm"]).axes) == 12


# --- files and the command -----------------------------------------------------------------------


def test_command_writes_a_picture(
    run_cli: RunCli, files: tuple[Path, Path], small_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "inside.png"
    words = ["visualize", files[0], "--mask", files[1], "-o", out, "--model", small_weights]
    code, stdout, stderr = run_cli(*words, "--layer", "residual.0", "--layer", "encoder_norms.2")
    assert (code, stdout.strip(), stderr) == (0, str(out), "")
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height / 3 > 100
    assert [path.name for path in out.parent.iterdir()] == ["inside.png"]


def test_command_lists_the_layers_with_their_sizes(
    run_cli: RunCli, files: tuple[Path, Path], small_weights: Path
) -> None:
    code, out, err = run_cli("visualize", files[0], "--list-layers", "--model", small_weights)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if "norm" in line]
    assert rows[0] == ["encoder_norms.0", "RN-B", "4", "72", "×", "52"]
    assert rows[3] == ["residual.0.first_norm", "RN-L", "16", "18", "×", "13"]
    assert len(rows) == 7


def test_folder_of_a_run_is_taken(tmp_path: Path, files: tuple[Path, Path]) -> None:
    save_weights(create_model("baseline-in", width=2, blocks=1), tmp_path / "best.safetensors")
    sizes = list_layers(files[0], model=str(tmp_path))
    assert [size.kind for size in sizes] == ["in"] * 7


def test_command_refuses_in_one_line(
    run_cli: RunCli, files: tuple[Path, Path], small_weights: Path, tmp_path: Path
) -> None:
    photo, mask = files
    out = tmp_path / "out.png"
    model = ["--model", small_weights]
    wrong = (
        ([photo, "-m", mask, "-o", out, "--layer", "residual.0.frist", *model], "--list-layers"),
        ([photo, "-m", mask, "-o", tmp_path / "out.xyz"], "cannot write"),
        ([photo, "-o", out], "--mask and --output are needed"),
        ([photo, "-m", mask], "--mask and --output are needed"),
        ([tmp_path / "none.jpg", "-m", mask, "-o", out], "none.jpg"),
        ([photo, "-m", tmp_path / "none.png", "-o", out], "none.png"),
        ([photo, "-m", mask, "-o", out, "--model", "nothing"], "no weights called"),
    )
    for words, expected in wrong:
        code, stdout, stderr = run_cli("visualize", *words)
        assert (code, stdout) == (2, ""), words
        assert expected in stderr
        assert stderr.count("\n") == 1
    assert not out.exists()


def test_large_photos_are_scaled_down_and_it_is_said(
    run_cli: RunCli,
    tmp_path: Path,
    small_weights: Path,
    make_photo: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MOST_PIXELS == 1_000_000
    monkeypatch.setattr("regionnorm.inspecting.look.MOST_PIXELS", 2000)
    make_photo(120, 60).save(tmp_path / "large.png")
    mask = Image.new("L", (120, 60))
    mask.putpixel((50, 30), 255)
    mask.save(tmp_path / "mask.png")
    words = [tmp_path / "large.png", "--mask", tmp_path / "mask.png", "-o", tmp_path / "out.webp"]
    code, _, err = run_cli(
        "visualize", *words, "--model", small_weights, "--layer", "encoder_norms.0"
    )
    assert code == 0
    assert err == "Note: large.png is scaled from 120 × 60 to 63 × 31 px for the picture\n"
    rows = list_layers(tmp_path / "large.png", model=str(small_weights))
    assert (rows[0].width, rows[0].height) == (64, 32)  # the network pads to its stride


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_photos_of_any_mode_are_taken(
    mode: str, tmp_path: Path, small_weights: Path, make_photo: Maker, make_mask: Maker
) -> None:
    photo = make_photo(40, 32, "L" if mode == "I;16" else mode)
    if mode == "I;16":
        photo = Image.fromarray(np.asarray(photo).astype(np.uint16) * 257)
    photo.save(tmp_path / "photo.tif")
    make_mask(40, 32).save(tmp_path / "mask.png")
    notes = visualize_photo(
        tmp_path / "photo.tif",
        tmp_path / "mask.png",
        tmp_path / "out.svg",
        layers=["encoder_norms.2"],
        model=str(small_weights),
    )
    assert notes == ()
    assert (tmp_path / "out.svg").read_bytes()[:5] == b"<?xml"
