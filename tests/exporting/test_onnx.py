"""Exported networks draw the same pictures as the networks, at every size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.checkpoints.onnx import load_onnx
from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.exporting.graph import Graph
from regionnorm.exporting.onnx import export
from regionnorm.exporting.tracing import traced
from regionnorm.filling.inpainter import Inpainter
from regionnorm.models import InpaintingModel, create_model, list_models
from regionnorm.nn import RegionNorm2d
from regionnorm.nn.edges import canny_edges
from regionnorm.nn.noise import AddedNoise

onnx = pytest.importorskip("onnx", reason="pip install 'regionnorm[export]'")
runtime = pytest.importorskip("onnxruntime", reason="pip install 'regionnorm[export]'")

RunCli = Callable[..., tuple[int, str, str]]
PhotoMaker = Callable[..., Image.Image]
SIZES = ((64, 64), (50, 81))
NEAR = 2e-4  # the deepest levels of partial convolution normalise a handful of values


def small(name: str, **options: Any) -> InpaintingModel:
    torch.manual_seed(0)
    return create_model(name, width=8, **options).eval()


def example(height: int, width: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, height, width, generator=random)
    mask = torch.zeros(1, 1, height, width)
    mask[..., 9:30, 20:33] = 1
    return image, mask


# Statistics in Table 2's other orders are the same operators.
@pytest.mark.parametrize("name", [n for n in list_models() if n[-5:-1] != "-arch" or n[-1] == "2"])
def test_every_network_draws_the_same_picture_at_any_size(name: str, tmp_path: Path) -> None:
    found = export(small(name), tmp_path / "model.onnx", sizes=SIZES)
    assert list(found.differences) == list(SIZES)
    assert 0 < found.largest < NEAR


OTHERS: list[dict[str, Any]] = [
    {"stats": "batch", "eps_on": "map"},  # as the paper's released weights
    {"stats": "batch", "track_running_stats": True},
    {"stats": "group:2", "upsample": "transpose", "bound": 0.5},
    {"stats": "layer", "noise": True, "upsample": "pixelshuffle-blur", "prefill": "diffusion"},
]


@pytest.mark.parametrize("options", OTHERS, ids=lambda options: "-".join(map(str, options)))
def test_every_option_of_the_family_is_exported(options: dict[str, Any], tmp_path: Path) -> None:
    model = small("rn", blocks=1, **options)
    for module in model.modules():
        if isinstance(module, AddedNoise):
            module.strength.data.uniform_(-1, 1)
    # Beyond 256 pixels the noise repeats.
    found = export(model, tmp_path / "model.onnx", sizes=((64, 300), (50, 81)))
    assert 0 < found.largest < NEAR


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_no_hole_and_nothing_but_hole_agree_too(fill: float, tmp_path: Path) -> None:
    model = small("rn", blocks=1, prefill="diffusion")
    export(model, tmp_path / "model.onnx", sizes=())
    image, mask = example(48, 40)
    mask = torch.full_like(mask, fill)
    with torch.no_grad():
        wanted = model(image, mask)
    assert (load_onnx(tmp_path / "model.onnx")(image, mask) - wanted).abs().max() < 1e-5


def test_the_file_is_plain_and_says_what_it_is(tmp_path: Path) -> None:
    model = small("rn", blocks=1)
    path = export(model, tmp_path / "model.onnx", sizes=(), licence="CC0-1.0").path
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {opset.domain for opset in proto.opset_import} == {""} and not proto.functions
    names = [node.name for node in proto.graph.node]
    assert all(names) and len({*names}) == len(names)  # ONNX Runtime 1.20 counts on it
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert (said["model"], said["license"]) == ("rn", "CC0-1.0")
    assert json.loads(said["options"]) == {"blocks": 1, "width": 8}
    assert "above 0.5 = hole" in said["mask"] and said["under the hole"] == "never read"
    sides = proto.graph.input[0].type.tensor_type.shape.dim[2:]
    assert [side.dim_param for side in sides] == ["height", "width"]


def test_half_precision_halves_the_file_and_stays_near(tmp_path: Path) -> None:
    model = small("rn", blocks=2)
    full, half = (
        export(model, tmp_path / f"{half}.onnx", half=half, sizes=SIZES[:1])
        for half in (False, True)
    )
    assert half.path.stat().st_size < 0.6 * full.path.stat().st_size
    assert full.largest < half.largest < 0.05


def test_a_network_stays_as_it_is_in_training_and_in_half_precision(tmp_path: Path) -> None:
    model = small("rn", blocks=0).train().bfloat16()
    assert export(model, tmp_path / "model.onnx", sizes=SIZES[:1]).largest < NEAR
    assert model.training and next(model.parameters()).dtype == torch.bfloat16


def test_a_picture_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regionnorm.exporting import tracing

    wrong = {"tanh": lambda graph, result, x: graph.node("Sigmoid", x.symbol)}
    monkeypatch.setattr(tracing, "_table", tracing._table | wrong)
    with pytest.raises(ValueError, match="in the mean, more than 0.001; nothing was written"):
        export(small("rn", blocks=0), tmp_path / "model.onnx", sizes=SIZES)
    monkeypatch.setattr(tracing, "_table", {})
    with pytest.raises(ValueError, match="the network calls gt, for which this exporter knows no"):
        export(small("rn", blocks=0), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"should end in \.onnx"):
        export(small("rn", blocks=0), tmp_path / "model.pb")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", range(3))
def test_edges_are_those_of_scikit_image_to_the_pixel(
    seed: int, make_photo: PhotoMaker, tmp_path: Path
) -> None:
    pytest.importorskip("skimage", reason="pip install 'regionnorm[eval]'")
    photo = np.asarray(make_photo(150, 120, "L", seed=seed), np.float32) / 255
    gray = torch.from_numpy(photo)[None, None]
    gray = gray + 0.2 * torch.rand(gray.shape)  # long weak edges, which hang on strong ones
    hole = torch.zeros_like(gray)
    hole[..., 30:60, 50:90] = 1
    graph = Graph()
    watched = (traced(x[..., :40, :60], n, graph) for x, n in ((gray, "gray"), (hole, "hole")))
    edges = canny_edges(*watched)
    shape = [1, 1, "height", "width"]
    infos = [graph.info(name, np.float32, shape) for name in ("gray", "hole", "edges")]
    proto = graph.model(infos[:2], {"edges": edges.symbol}, infos[2:], "edges")
    session = runtime.InferenceSession(proto.SerializeToString())
    (found,) = session.run(None, {"gray": gray.numpy(), "hole": hole.numpy()})
    wanted = canny_edges(gray, hole).numpy()
    assert 150 < wanted.sum() < 0.5 * wanted.size
    assert np.array_equal(found, wanted)


# --- used ----------------------------------------------------------------------------------------


def test_photos_are_filled_alike_with_completion_too(
    small_weights: Path, tmp_path: Path, make_photo: PhotoMaker, make_mask: PhotoMaker
) -> None:
    path = export(str(small_weights), tmp_path / "model.onnx", sizes=SIZES[:1]).path
    photo, mask = make_photo(221, 173), make_mask(221, 173)
    for method in ("network", "auto"):
        exported, network = (
            np.asarray(Inpainter(model, device="cpu", precision="fp32", method=method)(photo, mask))
            for model in (path, small_weights)
        )
        assert np.abs(exported.astype(int) - network).max() <= 1
        known = np.asarray(mask) == 0
        assert np.array_equal(exported[known], np.asarray(photo)[known])


def test_several_pictures_at_once_and_copies_work(tmp_path: Path) -> None:
    import copy

    path = export(small("rn", blocks=0), tmp_path / "model.onnx", sizes=()).path
    network = load_pretrained(path)
    image, mask = example(40, 48)
    both = network(torch.cat([image, 1 - image]), torch.cat([mask, mask]))
    assert torch.equal(both[1:], copy.deepcopy(network)(1 - image, mask))


def test_capitals_in_the_ending_and_sides_too_small_are_told(tmp_path: Path) -> None:
    path = export(small("rn", blocks=0), tmp_path / "MODEL.ONNX", sizes=()).path
    network = load_pretrained(path)
    with pytest.raises(ValueError, match="image is 12x40; both sides should be 16 or more"):
        network(*example(40, 12))


def test_files_that_are_no_exported_network_are_refused_in_one_line(tmp_path: Path) -> None:
    garbage, foreign = tmp_path / "garbage.onnx", tmp_path / "foreign.onnx"
    garbage.write_bytes(b"not a network at all")
    graph = Graph()
    info = graph.info("x", np.float32, [1])
    doubled = graph.node("Add", "x", "x")
    proto = graph.model([info], {"y": doubled}, [graph.info("y", np.float32, [1])], "")
    foreign.write_bytes(proto.SerializeToString())
    for path, message in ((garbage, "cannot be read"), (foreign, "its inputs are x")):
        with pytest.raises(ValueError, match=message) as caught:
            Inpainter(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Inpainter(tmp_path / "none.onnx")


def test_the_command_exports_by_name_and_says_how_far_off_it_is(
    tmp_path: Path,
    run_cli: RunCli,
    small_weights: Path,
    make_photo: PhotoMaker,
    make_mask: PhotoMaker,
) -> None:
    path = tmp_path / "model.onnx"
    code, out, _ = run_cli("export", small_weights, path, "--half")
    assert code == 0 and "77x131: largest difference" in out and str(path) in out
    make_photo(60, 50).save(tmp_path / "photo.png")
    make_mask(60, 50).save(tmp_path / "mask.png")
    photo, mask, filled = (tmp_path / f"{name}.png" for name in ("photo", "mask", "filled"))
    code, _, _ = run_cli("inpaint", photo, "-m", mask, "-o", filled, "--model", path)
    assert code == 0 and filled.is_file()
    code, _, err = run_cli("export", path, tmp_path / "again.onnx")
    assert code == 2 and "is an exported network already" in err
    code, _, err = run_cli("export", "nothing", tmp_path / "again.onnx")
    assert code == 2 and err.count("\n") == 1


def test_what_needs_the_layers_of_a_network_says_so_in_one_line(
    tmp_path: Path, run_cli: RunCli, make_photo: PhotoMaker
) -> None:
    pytest.importorskip("lightning", reason="pip install 'regionnorm[train]'")
    pytest.importorskip("matplotlib", reason="pip install 'regionnorm[study]'")
    path = export(small("rn", blocks=0), tmp_path / "model.onnx", sizes=()).path
    photos = tmp_path / "photos"
    photos.mkdir()
    make_photo(64, 64).save(photos / "photo.png")
    train = ["train", "default", "--data", photos, "--out", tmp_path / "run", "--set", "size=64"]
    train += ["--set", f"init={path}", "--set", "accelerator=cpu", "--set", "workers=0"]
    for command in (["visualize", photos / "photo.png", "--list-layers", "--model", path], train):
        code, _, err = run_cli(*command)
        assert code == 2 and "an exported network" in err.splitlines()[-1]


class Custom(InpaintingModel):
    """A network of somebody's own around one layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.first, self.layer = nn.Conv2d(4, 8, 3, padding="same"), layer
        self.last = nn.Conv2d(8, 3, 3, padding="same", dilation=3)

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        x = self.first(torch.cat([image, mask], dim=1))
        masked = isinstance(self.layer, RegionNorm2d)
        x = self.layer(x, mask) if masked else self.layer(x)
        return self.last(x).sigmoid()


def followed(norm: nn.Module) -> nn.Module:
    """The norm with running averages that differ from any picture's own."""
    for _ in range(3):
        norm(2 + 3 * torch.randn(4, 8, 16, 16))
    return norm


CUSTOM: dict[str, Callable[[], Any]] = {
    "elu": lambda: nn.ELU(0.5),
    "pad": lambda: lambda x: F.pad(x, (1, 1, 1, 1), value=1.0)[..., 1:-1, 1:-1] * 2,
    "instance norm": lambda: followed(nn.InstanceNorm2d(8, track_running_stats=True)),
    "batch norm": lambda: followed(nn.BatchNorm2d(8, affine=False)),
    "mean of pools": lambda: nn.AvgPool2d(3, 1, 1),
    "resize": lambda: lambda x: F.interpolate(x, scale_factor=(2, 2))[..., ::2, ::2],
}


@pytest.mark.parametrize("name", CUSTOM)
def test_networks_of_ones_own_are_exported_as_they_are(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = export(Custom(CUSTOM[name]()).eval(), tmp_path / "model.onnx", sizes=SIZES)
    assert found.largest < NEAR


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "mean": (lambda: lambda x: x - x.mean(), "calls mean in a way"),
    "add": (lambda: lambda x: torch.add(x, x, alpha=2), "calls add in a way"),
    "pad": (lambda: lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"), "calls pad in a way"),
    "ceil": (lambda: nn.AvgPool2d(3, 1, 1, ceil_mode=True), "ceil_mode"),
    "regions": (lambda: RegionNorm2d(8, num_regions=3), "only region norms of two regions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        export(Custom(make()).eval(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_no_network_of_this_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Conv2d is no InpaintingModel"):
        export(nn.Conv2d(3, 3, 1), tmp_path / "model.onnx")  # type: ignore[arg-type]
