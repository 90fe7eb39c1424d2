"""Pictures of what happens inside a network while it fills a photo (as Figure 8 of the paper).

One row for each chosen layer: the spatial response, the region mask, gamma and beta, and how means
and standard deviations of the regions change. :mod:`regionnorm.inspecting.layers` has the same as
tensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regionnorm._extras import require
from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.files.remote import Place, as_place
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import composite, eight_bits, image_to_tensor, mask_to_tensor
from regionnorm.inspecting.layers import (
    LayerRecord,
    LayerSize,
    Stage,
    find_layers,
    layer_sizes,
    norm_layers,
    visit_layers,
)
from regionnorm.inspecting.panels import KIND_NAMES, draw_inside, pca_picture
from regionnorm.inspecting.views import Inside, LayerView
from regionnorm.masks.check import MaskOptions, make_mask
from regionnorm.models.base import InpaintingModel
from regionnorm.photo import Photo, read_photo

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = [
    "Inside",
    "LayerView",
    "default_layers",
    "draw_inside",
    "layer_table",
    "list_layers",
    "look_inside",
    "pca_picture",
    "visualize",
    "visualize_photo",
]

MOST_PIXELS = 1_000_000
"""Larger photos are scaled down to this many pixels before the network sees them."""

STAGES: tuple[Stage, ...] = ("before", "normalised", "after")

_SMALL = 64  # pixels; enough for every network of the package
# The layers of the paper's Figure 8: the first RN-L of the sixth residual block, the second of the
# seventh and the second of the eighth.
_FIGURE_8 = ("residual.5.first_norm", "residual.6.second_norm", "residual.7.second_norm")


# --- looking -------------------------------------------------------------------------------------


def look_inside(
    model: nn.Module, image: Tensor, mask: Tensor, layers: Iterable[str] | None = None
) -> Inside:
    """Run a network once on a photo and keep what :func:`draw_inside` draws.

    Args:
        model: A network called as ``model(image, mask)``.
        image: One photo ``[1, 3, H, W]`` in [0, 1], on the model's device.
        mask: ``[1, 1, H, W]``, above 0.5 = hole.
        layers: Names for :func:`~regionnorm.inspecting.layers.find_layers`; None takes
            :func:`default_layers`.

    Raises:
        ValueError: There is no layer of that name or none at all, or the picture is not one.
    """
    if image.shape[0] != 1 or mask.shape[0] != 1:
        raise ValueError(f"got {image.shape[0]} photos and {mask.shape[0]} masks; give one of each")
    if not norm_layers(model):
        raise ValueError(
            f"the network ({_title(model)}) has no normalisation layer to look at; "
            "choose one with RN, IN or BN"
        )
    names = default_layers(model, image, mask) if layers is None else find_layers(model, layers)
    views: list[LayerView] = []
    with _encoder_output(model) as encoded:
        output = visit_layers(
            model, image, mask, lambda record: views.append(_view(model, mask, record)), names
        )
    hole = (mask > 0.5).float().cpu()
    image, output = image.float().cpu(), output.float().cpu()
    deep = _cropped(model, mask, encoded[-1])[0].float().cpu() if encoded else None
    return Inside(image, hole, deep, composite(image, output, hole), tuple(views))


def default_layers(model: nn.Module, image: Tensor, mask: Tensor) -> list[str]:
    """The layers that are worth a first look.

    The last RN-B, the paper's three of Figure 8 (or, in networks without them, three spread
    evenly), and the last two that run.

    Args:
        model: A network called as ``model(image, mask)``.
        image: ``[1, 3, H, W]``; the network runs once to tell its layers' order.
        mask: ``[1, 1, H, W]``.
    """
    if isinstance(model, InpaintingModel):  # the order is that of any picture
        image, mask = image[..., :_SMALL, :_SMALL], mask[..., :_SMALL, :_SMALL]
    ran = layer_sizes(model, image, mask)
    order = list(dict.fromkeys(size.layer for size in ran))
    given = [size.layer for size in ran if size.kind == "rn-b"]
    figure_8 = [name for name in order if name.removesuffix(".layer") in _FIGURE_8]
    if len(figure_8) < len(_FIGURE_8):
        found = [size.layer for size in ran if size.kind == "rn-l"] or order
        figure_8 = [found[len(found) * part // 4] for part in (1, 2, 3)]
    chosen = {*given[-1:], *figure_8, *order[-2:]}
    return [name for name in order if name in chosen]


def _view(model: nn.Module, mask: Tensor, record: LayerRecord) -> LayerView:
    def of_map(value: Tensor | None) -> Tensor | None:
        return None if value is None else _cropped(model, mask, value)[0, 0]

    learned = record.kind == "rn-l"
    return LayerView(
        record.layer,
        record.kind,
        _cropped(model, mask, record.mask)[0, 0],
        of_map(record.region),
        of_map(record.response),
        record.threshold,
        of_map(record.gamma) if learned else record.gamma,
        of_map(record.beta) if learned else record.beta,
        {stage: record.statistics(stage) for stage in STAGES},
    )


def _cropped(model: nn.Module, mask: Tensor, values: Tensor) -> Tensor:
    """A map ``[B, C, h, w]`` without the margin that the network pads the picture by."""
    if not isinstance(model, InpaintingModel):
        return values
    stride = model.stride
    rows, columns = (
        max(1, round(side * of / (-(-of // stride) * stride)))
        for side, of in zip(values.shape[-2:], mask.shape[-2:], strict=True)
    )
    return values[..., :rows, :columns]


@contextmanager
def _encoder_output(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the last feature map that a module called encoder hands out; a list of one or none."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            found[:] = [output]

    inside = [module for name, module in model.named_modules() if "encoder" in name]
    handles = [module.register_forward_hook(keep) for module in inside]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


# --- pictures -----------------------------------------------------------------------------------


def visualize(
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    layers: Iterable[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Run a network once on a photo and draw what happens at some of its layers.

    Args:
        model: As for :func:`look_inside`, and so are the others.
        image: ``[1, 3, H, W]``.
        mask: ``[1, 1, H, W]``.
        layers: Names of layers.
        title: A line about the network; by default its name and options.

    Returns:
        A matplotlib figure: ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: Without the ``study`` extra.
        ValueError: As for :func:`look_inside`.
    """
    require("matplotlib", extra="study")
    inside = look_inside(model, image, mask, layers)
    return draw_inside(inside, title=_title(model) if title is None else title)


def _title(model: nn.Module) -> str:
    if not isinstance(model, InpaintingModel) or not model.name:
        return type(model).__name__
    options = ", ".join(f"{key}={value}" for key, value in model.options.items())
    return f"{model.name} ({options})" if options else model.name


# --- files ---------------------------------------------------------------------------------------


def visualize_photo(
    photo: str | os.PathLike[str],
    mask: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    model: str = "default",
    mask_options: MaskOptions | None = None,
    device: str | None = "cpu",
) -> tuple[str, ...]:
    """Draw what happens inside a network while it fills a photo, and write it to a file.

    Args:
        photo: A photo of any format and size; above :data:`MOST_PIXELS` it is scaled down.
        mask: A file or a rule, as :func:`~regionnorm.masks.check.make_mask` takes them.
        output: Where to write: PNG, PDF, SVG or another format that matplotlib writes.
        layers: As for :func:`look_inside`.
        model: A name, a file or a folder for
            :func:`~regionnorm.checkpoints.weights.load_pretrained`.
        mask_options: What to do to the mask.
        device: Where the network runs; None picks the best device.

    Returns:
        What the user should know, one line each: what looks odd in the mask, the smaller size.

    Raises:
        FileNotFoundError: A file does not exist.
        OSError: A file cannot be read or written.
        ValueError: The suffix, the photo, the mask, the weights or a layer's name is none.
        ImportError: Without the ``study`` extra.
    """
    target = as_place(output)
    suffix = _check_suffix(target)
    pixels = read_photo(photo)
    # A network knows hole and known pixels, and nothing between.
    checked = make_mask(pixels, mask, replace(mask_options or MaskOptions(), hard=True))
    image, hole, note = _scaled(pixels, checked.hole)
    network, where = _network(model, device)
    inside = look_inside(network, image.to(where), hole.to(where), layers)
    name = f"{as_place(photo).name}, {as_place(model).name}: {_title(network)}"
    figure = draw_inside(inside, title=name, note=note)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format=suffix)
    return (*checked.warnings, *([f"{as_place(photo).name} is {note}"] if note else []))


def _network(model: str, device: str | None) -> tuple[nn.Module, torch.device]:
    """A network by name whose layers can be watched, and where it is."""
    network = load_pretrained(model, device=device)
    first = next(network.parameters(), None)
    if first is None:
        raise ValueError(
            f"{model} is an exported network, whose layers cannot be seen; give the weights that "
            "it was made of"
        )
    return network, first.device


def list_layers(
    photo: str | os.PathLike[str], *, model: str = "default", device: str | None = "cpu"
) -> list[LayerSize]:
    """The normalisation layers of a network and their sizes for a photo, in order.

    Args:
        photo: As for :func:`visualize_photo`, and so are the others.
        model: Weights.
        device: Where the network runs.

    Raises:
        ValueError: As for :func:`visualize_photo`.
    """
    pixels = read_photo(photo)
    nothing = np.zeros((pixels.size[1], pixels.size[0]), bool)
    image, hole, _ = _scaled(pixels, nothing)
    network, where = _network(model, device)
    return layer_sizes(network, image.to(where), hole.to(where))


def layer_table(sizes: Sequence[LayerSize]) -> Table:
    """Names, kinds, channels and sizes for the terminal.

    Args:
        sizes: What :func:`list_layers` returns.
    """
    from rich import box
    from rich.table import Table

    table = Table("layer", "kind", "channels", "width × height", box=box.SIMPLE)
    for size in sizes:
        name, kind = size.layer.removesuffix(".layer"), KIND_NAMES[size.kind]
        table.add_row(name, kind, str(size.channels), f"{size.width} × {size.height}")
    return table


def _scaled(photo: Photo, hole: Any) -> tuple[Tensor, Tensor, str]:
    """Image and mask as tensors, of at most ``MOST_PIXELS``, and a line about it."""
    image, mask = (
        Image.fromarray(eight_bits(photo.colours())),
        Image.fromarray(hole.astype(np.uint8) * 255),
    )
    width, height = image.size
    if width * height <= MOST_PIXELS:
        return image_to_tensor(image), mask_to_tensor(mask), ""
    scale = (MOST_PIXELS / (width * height)) ** 0.5
    size = (max(16, int(width * scale)), max(16, int(height * scale)))
    # A pixel with any hole in it is hole: what shall be replaced must not tint the known ones.
    mask = mask.resize(size, Image.Resampling.BOX).point(lambda level: 255 if level else 0)
    image = image.resize(size, Image.Resampling.BOX)
    note = f"scaled from {width} × {height} to {size[0]} × {size[1]} px for the picture"
    return image_to_tensor(image), mask_to_tensor(mask), note


def _check_suffix(path: Place) -> str:
    """The format to write, before any work is done."""
    backend = require("matplotlib.backends.backend_agg", extra="study")
    figures = require("matplotlib.figure", extra="study")
    known = set(backend.FigureCanvasAgg(figures.Figure()).get_supported_filetypes())
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in known:
        raise ValueError(f"cannot write {path}: give a name that ends in .png, .webp, .pdf or .svg")
    return suffix
