"""Figures 5, 7, 8 and 9: what networks paint, and what happens inside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from regionnorm._extras import require
from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.data import ImageSource, open_source
from regionnorm.data.sources import read_first
from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import composite, image_to_tensor, mask_to_tensor, tensor_to_image
from regionnorm.inspecting.layers import LayerRecord, inspect_layers
from regionnorm.masks import Interval, center_square_mask, evaluation_mask, scratch_mask
from regionnorm.measuring.evaluate import Filler, resolve_model
from regionnorm.studies.figures import new_figure, save_figure
from regionnorm.studies.photos import StudyData
from regionnorm.studies.plan import Group, PhotoKind, Run, Study
from regionnorm.studies.results import RESULT
from regionnorm.studies.sections import Figure

__all__ = ["Context", "MissingWeightsError", "draw_pictures", "read_square"]

Picture = npt.NDArray[Any]
"""``[H, W, 3]`` of uint8, or ``[H, W]`` of numbers, which are drawn with a colour bar."""

# The layers of the paper's figures, by what find_layers knows them as.
R6RN1, R7RN1 = "residual.5.first_norm", "residual.6.first_norm"
R7RN2, R8RN2 = "residual.6.second_norm", "residual.7.second_norm"
_NUMBERS = (3, 8, 13)  # photos that are shown
_HOLES: tuple[Interval, ...] = ((0.2, 0.3), (0.3, 0.4), (0.2, 0.3))


class MissingWeightsError(FileNotFoundError):
    """A run came as a result alone, and the study looks into its network."""


@dataclass(frozen=True)
class Context:
    """What pictures are made of.

    Attributes:
        study: Which.
        runs: Folder of the runs' folders.
        data: The photos.
        folder: Where the pictures go.
        shown: Folder of photos to show, in ``scenes/`` and ``faces/``; None takes validation
            photos.
    """

    study: Study
    runs: Path
    data: StudyData
    folder: Path
    shown: Path | None = None

    def photos(self, kind: PhotoKind, size: int) -> list[Image.Image]:
        """Three photos to show, square."""
        spec = self.data.get(kind).val if self.shown is None else str(self.shown / kind)
        source = open_source(spec)
        return [read_square(source, number % len(source), size) for number in _NUMBERS]

    def weights(self, group: Group) -> str:
        """The weights file of a group's first run."""
        return self.run_weights(group.runs[0])

    def run_weights(self, run: Run) -> str:
        """The weights file of a run.

        Raises:
            MissingWeightsError: The run came without, as a result alone.
        """
        path = self.runs / run.name / "weights.safetensors"
        if not path.is_file():
            raise MissingWeightsError(
                f"{path.parent} holds a result without weights, and {self.study.name} looks into "
                f"the network; delete its {RESULT}, and the run is trained again"
            )
        return str(path)

    def own_weights(self) -> str | None:
        """Weights of the paper's network: those of this scale's run, or the package's."""
        return self.weights(self.study.groups[0]) if self.study.groups else None


def draw_pictures(context: Context) -> tuple[Figure, ...]:
    """Draw a study's pictures into its folder; none for tables and curves."""
    if context.study.name not in _PICTURES:
        return ()
    draw, caption = _PICTURES[context.study.name]
    name = f"{context.study.name}.png"
    save_figure(draw(context), context.folder / name)
    return (Figure(name, caption),)


# --- Figure 5 ------------------------------------------------------------------------------------


def _figure5(context: Context) -> Any:
    """Two rows of scenes and two of faces; the last row has a square hole."""
    size = context.study.scale.size
    squares = ("faces", 1)
    rows: list[list[Picture]] = []
    titles: list[str] = []
    kinds: tuple[PhotoKind, ...] = ("scenes", "faces")
    for kind in kinds:
        groups = [group for group in context.study.groups if group.runs[0].photos == kind]
        fillers = [resolve_model(context.weights(group))[1] for group in groups]
        titles = ["input", *(group.label.partition(",")[0] for group in groups), "original"]
        for i, photo in enumerate(context.photos(kind, size)[:2]):
            square = (kind, i) == squares
            mask = center_square_mask(size, size) if square else _mask(i, size)
            rows.append(_row(photo, mask, fillers))
    return _grid(rows, titles)


def _mask(i: int, size: int) -> npt.NDArray[np.bool_]:
    return evaluation_mask(_NUMBERS[i], _HOLES[i], size)


def read_square(source: ImageSource, number: int, size: int) -> Image.Image:
    """A photo of a source, or the next that can be read, scaled and cropped in the centre."""
    count = len(source)
    photo, _ = read_first(source, ((number + step) % count for step in range(count)))
    return ImageOps.fit(photo, (size, size), Image.Resampling.LANCZOS)


def _row(
    photo: Image.Image, mask: npt.NDArray[np.bool_], fillers: Sequence[Filler]
) -> list[Picture]:
    image, hole = image_to_tensor(photo), mask_to_tensor(mask)
    pictures = [_picture(image * (1 - hole) + hole)]
    for fill in fillers:
        pictures.append(_picture(composite(image, fill(image * (1 - hole), hole), hole)))
    return [*pictures, np.asarray(photo)]


def _picture(image: Tensor) -> Picture:
    return np.asarray(tensor_to_image(image))


# --- Figures 7 and 8 -----------------------------------------------------------------------------


def _figure7(context: Context) -> Any:
    """A row a photo: the photo, its hole, and the region that each threshold's network finds."""
    models = [load_pretrained(context.weights(group)) for group in context.study.groups]
    rows = []
    for i, photo in enumerate(context.photos("scenes", context.study.scale.size)):
        image, mask = _tensors(photo, i)
        regions = []
        for model in models:
            (record,) = inspect_layers(model, image * (1 - mask), mask, [R6RN1])
            regions.append(_region(record))
        rows.append([_picture(image), _map(mask), *regions])
    titles = ["original", "mask", *(group.label for group in context.study.groups)]
    return _grid(rows, titles)


def _figure8(context: Context) -> Any:
    """Two rows as the paper's upper half and two as its lower one."""
    size = 2 * context.study.scale.size  # features are a quarter of it
    model = load_pretrained(context.own_weights())
    rows: list[list[Picture | None]] = []
    for i, photo in enumerate(context.photos("scenes", size)[:2]):
        image, mask = _tensors(photo, i)
        records = {
            record.layer.removesuffix(".layer"): record
            for record in inspect_layers(
                model, image * (1 - mask), mask, [R6RN1, R7RN1, R7RN2, R8RN2, "encoder_norms.2"]
            )
        }
        given = _picture(image * (1 - mask) + mask)
        first = [given]
        for name in (R6RN1, R7RN2, R8RN2):
            first += [_response(records[name]), _region(records[name])]
        shown = records[R7RN1]
        encoded = torch.relu(records["encoder_norms.2"].after).mean(1)[0].numpy()
        rows.append([*first])
        rows.append(
            [
                given,
                encoded,
                _response(shown),
                _region(shown),
                _affine(shown.gamma),
                _affine(shown.beta),
                None,
            ]
        )
    upper = "input,R6RN1 response,R6RN1 mask,R7RN2 response,R7RN2 mask,R8RN2 response,R8RN2 mask"
    lower = "input,encoder's result,R7RN1 response,R7RN1 mask,R7RN1 gamma,R7RN1 beta,"
    return _grid(rows, upper.split(","), lower.split(","))


def _tensors(photo: Image.Image, i: int) -> tuple[Tensor, Tensor]:
    return image_to_tensor(photo), mask_to_tensor(_mask(i, photo.width))


def _region(record: LayerRecord) -> Picture:
    if record.region is None:
        raise ValueError(f"layer {record.layer!r} finds no regions; Figures 7 and 8 show RN-L's")
    return _map(record.region)


def _response(record: LayerRecord) -> Picture:
    if record.response is None:
        raise ValueError(f"layer {record.layer!r} has no response; Figure 8 shows RN-L's")
    return record.response[0, 0].numpy()


def _affine(values: Tensor | None) -> Picture:
    if values is None:
        raise ValueError("Figure 8 shows the gamma and beta maps of RN-L")
    return values[0, 0].numpy()


def _map(mask: Tensor) -> Picture:
    shown = (mask[0, 0] > 0.5).numpy().astype(np.uint8) * 255
    return np.stack([shown] * 3, axis=-1)


# --- Figure 9 ------------------------------------------------------------------------------------


def _figure9(context: Context) -> Any:
    """Object removal, face editing, restoration: photo, hole, result."""
    inpainter = Inpainter(context.own_weights())
    rows = []
    for photo, mask in _uses():
        result = inpainter(photo, mask)
        shown = np.asarray(photo).copy()
        shown[mask] = (255, 255, 255)
        side = (256, 256)
        rows.append(
            [
                np.asarray(ImageOps.fit(picture, side, Image.Resampling.LANCZOS))
                for picture in (photo, Image.fromarray(shown), result)
            ]
        )
    labels = ["object removal", "face editing", "restoration"]
    return _grid(rows, ["photo", "hole", "result"], labels=labels)


def _uses() -> list[tuple[Image.Image, npt.NDArray[np.bool_]]]:
    """Scikit-image's own photos, and what somebody might want of them."""
    data = require("skimage.data", extra="eval")
    coffee = Image.fromarray(data.coffee()).crop((60, 0, 460, 400))
    spoon = _band((400, 400), (300, 290), (320, 260), 78)
    spoon |= _band((400, 400), (320, 260), (378, 88), 36)
    face = Image.fromarray(data.astronaut()).crop((130, 0, 330, 200))
    mouth = np.zeros((200, 200), dtype=np.bool_)
    mouth[134:158, 60:114] = True
    cat = Image.fromarray(data.chelsea()).crop((80, 0, 380, 300))
    rng = np.random.default_rng(4)
    scratches = scratch_mask(300, 300, rng) | scratch_mask(300, 300, rng)
    return [(coffee, spoon), (face, mouth), (cat, scratches)]


def _band(
    shape: tuple[int, int], start: tuple[int, int], end: tuple[int, int], width: float
) -> npt.NDArray[np.bool_]:
    """Pixels nearer than half of ``width`` to the line between two ``(x, y)``."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    along = np.array(end, dtype=np.float64) - start
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / float(along @ along)
    share = share.clip(0, 1)
    distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    near: npt.NDArray[np.bool_] = distance < width / 2
    return near


# --- layout --------------------------------------------------------------------------------------


def _grid(
    rows: Sequence[Sequence[Picture | None]],
    titles: Sequence[str],
    second: Sequence[str] | None = None,
    labels: Sequence[str] = (),
) -> Any:
    """Pictures in rows; maps get a colour bar. ``second`` are the titles of every other row."""
    figure = new_figure((1.55 * len(titles) + 0.3, 1.7 * len(rows)))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for i, row in enumerate(rows):
        for j, (axes, picture) in enumerate(zip(grid[i], row, strict=True)):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(color="0.6", linewidth=0.5, visible=picture is not None)
            if second is not None or i == 0:
                axes.set_title((titles if second is None or i % 2 == 0 else second)[j], fontsize=8)
            if j == 0 and labels:
                axes.set_ylabel(labels[i], fontsize=8)
            if picture is None:
                continue
            title = axes.get_title()
            # Responses are shares: with a range of their own, noise of a millionth would fill it.
            limits = {"vmin": 0, "vmax": 1} if title.endswith("response") else {}
            drawn = axes.imshow(picture, cmap="viridis", interpolation="nearest", **limits)
            if picture.ndim == 2:
                bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02)
                bar.ax.tick_params(labelsize=6)
                bar.formatter.set_useOffset(False)
    return figure


_PICTURES: dict[str, tuple[Callable[[Context], Any], str]] = {
    "figure5": (
        _figure5,
        "The input, what the six networks paint, and the original: two scenes, two faces; "
        "the last hole is the square in the centre.",
    ),
    "figure7": (
        _figure7,
        "White: the region above the threshold in the first RN-L of residual block 6, in "
        "networks trained with each threshold.",
    ),
    "figure8": (
        _figure8,
        "RN-L in residual blocks 6 to 8 (R7RN2: second RN-L of block 7): response, and in white "
        "the region above t = 0.8; gamma, beta, and the mean of the encoder's channels.",
    ),
    "figure9": (_figure9, "Photos of scikit-image's: what was asked for, and what came of it."),
}
