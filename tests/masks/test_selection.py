"""A rough stroke, a box or a click selects the object that it means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageDraw

from regionnorm.checkpoints.sessions import kept_session
from regionnorm.masks.selection import find_segmenter, select_object
from regionnorm.masks.selection.contours import cut_up

Pixels = npt.NDArray[np.uint8]
Hole = npt.NDArray[np.bool_]

BODY = (70, 60, 170, 120)


@pytest.fixture
def scene(rng: np.random.Generator) -> tuple[Pixels, Hole]:
    """A body with a leg, of one noisy colour on another, and a second body beside it."""
    mask = Image.new("L", (260, 180))
    draw = ImageDraw.Draw(mask)
    draw.ellipse(BODY, fill=255)
    draw.rectangle((90, 110, 102, 150), fill=255)
    thing = np.asarray(mask) > 127
    draw.ellipse((195, 60, 250, 120), fill=255)
    colours = np.where((np.asarray(mask) > 127)[..., None], (150, 90, 60), (80, 120, 70))
    noisy = colours + rng.normal(0, 14, colours.shape)
    return noisy.clip(0, 255).astype(np.uint8), thing


def stroke(*points: tuple[int, int], width: int = 34) -> Hole:
    image = Image.new("L", (260, 180))
    ImageDraw.Draw(image).line(points, fill=255, width=width)
    return np.asarray(image) > 127


def overlap(one: Hole, other: Hole) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_rough_stroke_becomes_the_object_and_not_its_neighbour(scene: tuple[Pixels, Hole]) -> None:
    photo, thing = scene
    rough = stroke((80, 100), (110, 82), (180, 100))
    assert (rough & ~thing).any() and overlap(rough, thing) < 0.6
    found = select_object(photo, rough, segmenter=None)
    assert overlap(found, thing) > 0.93
    # The same for an image, for 16 bits, and each time.
    other = select_object(photo.astype(np.uint16) * 257, Image.fromarray(rough), segmenter=None)
    assert (other == found).all()


def test_box_and_click_select_too(scene: tuple[Pixels, Hole]) -> None:
    photo, thing = scene
    assert overlap(select_object(photo, box=(64, 54, 178, 156), segmenter=None), thing) > 0.85
    assert overlap(select_object(photo, points=[(120, 92)], segmenter=None), thing) > 0.85


def test_selection_grows_and_shrinks_by_pixels(scene: tuple[Pixels, Hole]) -> None:
    photo, _ = scene
    widths = [
        select_object(photo, stroke((90, 90), (150, 90)), grow=grow, segmenter=None)[90].sum()
        for grow in (-4, 0, 5)
    ]
    assert np.diff(widths).tolist() == pytest.approx([8, 10], abs=1)


def test_size_of_the_photo_changes_nothing_but_the_edge(scene: tuple[Pixels, Hole]) -> None:
    photo, thing = scene
    large = np.asarray(Image.fromarray(photo).resize((1040, 720), Image.Resampling.BICUBIC))
    rough = np.kron(stroke((85, 90), (155, 90)), np.ones((4, 4), bool))
    found = select_object(large, rough, segmenter=None)
    assert found.shape == (720, 1040)
    assert overlap(found, np.kron(thing, np.ones((4, 4), bool))) > 0.93


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (12, 9)])
def test_tiny_photos_have_something_to_select(size: tuple[int, int], rng: object) -> None:
    photo = np.full((*size, 3), 90, np.uint8)
    painted = np.zeros(size, bool)
    painted[0, 0] = True
    assert select_object(photo, painted, segmenter=None).any()


def test_pieces_cover_the_picture_and_end_at_its_contours(scene: tuple[Pixels, Hole]) -> None:
    photo, thing = scene
    cv2 = pytest.importorskip("cv2")
    pieces = cut_up(cv2.cvtColor(photo, cv2.COLOR_RGB2LAB).astype(np.float32))
    assert pieces.area.sum() == thing.size and pieces.area.min() > 0
    share = pieces.mean(thing)
    wrong = np.minimum(share, 1 - share) @ pieces.area
    assert wrong < 0.05 * thing.sum()


def test_wrong_input_is_said_in_one_line(scene: tuple[Pixels, Hole]) -> None:
    photo, _ = scene
    for named, words in (
        ({}, "nothing is painted"),
        ({"scribble": np.zeros((180, 260), bool)}, "nothing is painted"),
        ({"scribble": np.ones((10, 20), bool)}, "the scribble is 20x10 but the photo is 260x180"),
        ({"scribble": np.ones((180, 260, 3), bool)}, r"\[180, 260, 3\]; give \[H, W\]"),
        ({"box": (50, 50, 50, 90)}, "the box 50,50,50,90 is empty"),
        ({"box": (50, 50, 300, 90)}, "not inside the photo, 260x180"),
        ({"points": [(260, 4)]}, "the point 260,4 is not on the photo"),
        ({"points": [(120, 90)], "grow": 1001}, "grow is 1001"),
        ({"points": [(120, 90)], "grow": -900}, "nothing is left"),
        ({"points": [(120, 90)], "grow": 2.5}, r"grow is 2\.5; give whole pixels"),
        ({"points": [(120, 90)], "grow": float("nan")}, "grow is nan; give whole"),
        ({"box": (50.5, 50, 90, 90)}, r"the box is \(50\.5, 50, 90, 90\); give left,top"),
        ({"box": (50, 50, float("inf"), 90)}, "the box is .*inf"),
        ({"box": (50, 50, 90)}, r"the box is \(50, 50, 90\)"),
        ({"box": "1234"}, "the box is '1234'"),
        ({"points": [("a", 3)]}, r"a point is \('a', 3\); give a pair x,y"),
        ({"points": (120, 90)}, "a point is 120; give a pair"),
        ({"points": [(float("nan"), 4)]}, "a point is .*nan"),
        ({"points": 7}, "points is 7"),
        ({"box": (50, 50, 90, 90), "points": [(120, 92)]}, "120,92 is outside the box 50,50,90,90"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            select_object(photo, **named, segmenter=None)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="give an image, or RGB"):
        select_object(photo[..., 0], points=[(1, 1)], segmenter=None)


def test_images_are_read_as_photos_and_masks_are(scene: tuple[Pixels, Hole]) -> None:
    photo, _ = scene
    rough = stroke((80, 100), (110, 82), (160, 100))
    expected = select_object(photo, rough, segmenter=None)
    # Turned by its EXIF data.
    turned = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert (select_object(turned, rough, segmenter=None) == expected).all()
    # Gray of 16 bits.
    gray = photo[..., 0].astype(np.uint16) * 257
    deep = select_object(Image.fromarray(gray), rough, segmenter=None)
    flat = select_object(np.repeat(photo[..., :1], 3, 2), rough, segmenter=None)
    assert (deep == flat).all() and not deep.all()
    layer = Image.new("RGBA", (260, 180), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), mask=Image.fromarray(rough))
    for given in (
        layer,
        Image.fromarray(rough.astype(np.uint16) * 65535),
        Image.fromarray(rough.astype(np.uint16) * 30000),
        rough.astype(np.uint8),
        rough.astype(np.float32) * 0.8,
    ):
        assert (select_object(photo, given, segmenter=None) == expected).all()


# --- with a network ------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """An ONNX file that takes for the object what is redder than most."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = helper.make_tensor("w", kind, (1, 3, 1, 1), [1.0, -1.0, 0.0])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "redness",
        [helper.make_tensor_value_info("x", kind, (1, 3, 320, 320))],
        [helper.make_tensor_value_info("y", kind, (1, 1, 320, 320))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "u2netp.onnx"
    onnx.save(model, path)
    return path


def test_a_network_takes_as_many_threads_as_pytorch_and_is_opened_once(network: Path) -> None:
    session = kept_session(network, extra="export")
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    assert kept_session(str(network), extra="export") is session


def test_network_of_the_persons_own_is_asked(
    scene: tuple[Pixels, Hole], network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, thing = scene
    rough = stroke((85, 90), (155, 90), width=40)
    found = select_object(photo, rough, segmenter=network)
    assert overlap(found, thing) > 0.93
    seen: list[bytes] = []

    def nothing(picture: Pixels, _: Path) -> npt.NDArray[np.float32]:
        seen.append(picture.tobytes())
        return np.zeros(picture.shape[:2], np.float32)

    with monkeypatch.context() as patch:
        patch.setattr("regionnorm.masks.selection.select.saliency", nothing)
        assert select_object(photo, rough, segmenter=network).sum() < found.sum()
    assert len(seen) == 1
    monkeypatch.setenv("REGIONNORM_SEGMENTER", str(network))
    assert find_segmenter() == network
    assert (select_object(photo, rough) == found).all()
    assert (
        select_object(photo, rough, segmenter="") == select_object(photo, rough, segmenter=None)
    ).all()
    with pytest.raises(FileNotFoundError, match=r"there is no file nope\.onnx"):
        select_object(photo, rough, segmenter="nope.onnx")
    # What is no network is named.
    wrong = network.with_name("wrong.onnx")
    wrong.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"wrong\.onnx is no U²-Net") as error:
        select_object(photo, rough, segmenter=wrong)
    assert "\n" not in str(error.value)


def test_network_is_looked_for_where_rembg_keeps_it(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGIONNORM_SEGMENTER", raising=False)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    assert find_segmenter() is not None
    monkeypatch.setenv("REGIONNORM_SEGMENTER", "")
    assert find_segmenter() is None
    monkeypatch.setenv("REGIONNORM_SEGMENTER", str(tmp_path / "gone.onnx"))
    with pytest.raises(ValueError, match=r"gone\.onnx, which is no file"):
        find_segmenter()
