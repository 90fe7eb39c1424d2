"""The picture of a network at work: a row of panels for the photo and for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from regionnorm._extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regionnorm.inspecting.layers import Kind, Stage
    from regionnorm.inspecting.views import Inside, LayerView

__all__ = ["KIND_NAMES", "draw_inside", "pca_picture"]

# Inches. Places are given outright: matplotlib's own layout of so many panels takes seconds.
_PANEL, _STEP, _LEFT, _RIGHT, _TITLES = 2.1, 2.75, 0.75, -0.1, 0.72
_BAR = 0.35  # more room for the labels of the last colour bar
_COLUMNS = 6
_SMALL, _NORMAL = 7, 9  # points
# Okabe and Ito's colours, which the colour-blind tell apart.
_STAGES: Mapping[Stage, tuple[str, str, str]] = {
    "before": ("#E69F00", "o", "the layer's input"),
    "normalised": ("#56B4E9", "s", "normalised (eq. 11), without gamma and beta"),
    "after": ("#000000", "^", "output, before any ReLU"),
}
_KNOWN_COLOUR, _HOLE_COLOUR = "#0072B2", "#D55E00"
_REGION_COLOURS = ("#00204D", "#FFE945")  # both ends of cividis
KIND_NAMES: Mapping[Kind, str] = {"rn-b": "RN-B", "rn-l": "RN-L", "in": "IN", "bn": "BN"}
_RANGE = (10, 90)  # percentiles of the channels
_LARGE = 8.0  # values beyond it would hide those around one


def draw_inside(inside: Inside, *, title: str = "", note: str = "") -> Figure:
    """Draw what :func:`~regionnorm.inspecting.look.look_inside` kept.

    Args:
        inside: What to draw.
        title: A line about the network.
        note: A line about the photo.

    Raises:
        ImportError: Without the ``study`` extra.
    """
    figures = require("matplotlib.figure", extra="study")
    height, width = inside.image.shape[-2:]
    panel = _PANEL * min(max(height / width, 0.6), 1.25)
    rows = 1 + len(inside.layers)
    size = (_LEFT + _COLUMNS * _STEP + _RIGHT, rows * (panel + _TITLES))
    figure: Figure = figures.Figure(figsize=size, dpi=100)

    def add_row(row: int) -> list[Any]:
        bottom = (rows - row - 1) * (panel + _TITLES) + 0.25
        return [
            figure.add_axes(
                (
                    (_LEFT + column * _STEP + _BAR * (column > 3)) / size[0],
                    bottom / size[1],
                    _PANEL / size[0],
                    panel / size[1],
                )
            )
            for column in range(_COLUMNS)
        ]

    _draw_photos(add_row(0), inside, title, note)
    for row, view in enumerate(inside.layers, start=1):
        axes = add_row(row)
        _draw_response(axes[0], view)
        _draw_region(axes[1], view)
        _draw_affine(axes[2], view, "gamma")
        _draw_affine(axes[3], view, "beta")
        _draw_statistics(axes[4], view, "mean")
        _draw_statistics(axes[5], view, "standard deviation")
        name = f"{view.layer.removesuffix('.layer')}\n{KIND_NAMES[view.kind]}"
        centre = 1 - (row * (panel + _TITLES) + _TITLES - 0.25 + panel / 2) / size[1]
        figure.text(0.12 / size[0], centre, name, rotation=90, va="center", fontsize=_NORMAL)
    return figure


def pca_picture(features: Tensor) -> Tensor:
    """Features as colours: their three principal components as red, green and blue.

    Args:
        features: float ``[C, H, W]``.

    Returns:
        float32 ``[H, W, 3]`` in [0, 1]: each component from its 1st to its 99th percentile. Fewer
        than three channels are repeated.
    """
    channels, height, width = features.shape
    pixels = features.flatten(1).double()
    pixels = pixels - pixels.mean(1, keepdim=True)
    _, axes = torch.linalg.eigh(pixels @ pixels.t())
    axes = axes.flip(1)[:, torch.arange(3).clamp(max=channels - 1)]
    # Eigenvectors have no sign of their own.
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)
    components = (axes.t() @ pixels).numpy()
    low, high = np.percentile(components, (1, 99), axis=1, keepdims=True)
    scaled = ((components - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return torch.from_numpy(scaled).float().t().reshape(height, width, 3)


# --- the first row -------------------------------------------------------------------------------


def _draw_photos(axes: Sequence[Any], inside: Inside, title: str, note: str) -> None:
    shown = inside.image[0].permute(1, 2, 0).clone()
    shown[inside.mask[0, 0].bool()] = 1.0
    _picture(axes[0], shown, "input (hole white)")
    if inside.encoded is None:
        _say(axes[1], "no part of this network\nis called encoder")
    else:
        channels = inside.encoded.shape[0]
        _picture(
            axes[1], pca_picture(inside.encoded), f"encoder's result\n{channels} channels, PCA"
        )
    fill = inside.fill[0].permute(1, 2, 0).clamp(0, 1)
    _picture(axes[2], fill, "fill (one pass of the network)")
    for ax in axes[3:]:
        ax.set_axis_off()
    height, width = inside.mask.shape[-2:]
    size = f"{width} × {height} px, {float(inside.mask.mean()):.1%} of them hole (outlined)"
    lines = (title, size, note)
    text = "\n".join(line for line in lines if line)
    axes[3].text(0, 1.1, text, transform=axes[3].transAxes, va="top")
    handles = [
        axes[3].plot([], [], color=colour, marker=marker, linestyle="none", label=label)[0]
        for colour, marker, label in _STAGES.values()
    ]
    axes[3].legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.04, -0.12),
        frameon=False,
        alignment="left",
        title="Means and standard deviations: median of the channels,\n"
        "bar from the 10th to the 90th percentile",
    )


# --- a layer's panels ----------------------------------------------------------------------------


def _draw_response(ax: Any, view: LayerView) -> None:
    if view.response is None:
        given = "the mask gives the regions" if view.kind == "rn-b" else "all pixels are one region"
        _say(ax, f"no response:\n{given}")
        return
    title = f"response, {float(view.response.min()):.2f} to {float(view.response.max()):.2f}"
    _map(ax, view, view.response, title, cmap="viridis", limits=(0.0, 1.0))


def _draw_region(ax: Any, view: LayerView) -> None:
    if view.region is None:
        _say(ax, "no region mask")
        return
    title = f"region mask\n{float(view.region.bool().float().mean()):.1%} of the map"
    if view.kind == "rn-l":
        hole, known = view.overlap
        title = f"region: response > {view.threshold:g}\n{_percent(hole)} of the hole, "
        title += f"{_percent(known)} of the known"
    most = max(1, int(view.region.max()))
    colours = require("matplotlib.colors", extra="study")
    cmap = colours.ListedColormap(_REGION_COLOURS) if most == 1 else "cividis"
    _map(ax, view, view.region.float(), title, cmap=cmap, limits=(0.0, float(most)), bar=False)


def _draw_affine(ax: Any, view: LayerView, which: str) -> None:
    """Gamma or beta: a map in RN-L, of each region and channel in others."""
    values: Tensor | None = getattr(view, which)
    if values is None:
        _say(ax, f"no {which}")
    elif view.kind == "rn-l":
        low, high = np.percentile(values.numpy(), (1, 99))
        title = "gamma (scale is 1 + gamma)" if which == "gamma" else "beta"
        _map(ax, view, values, title, cmap="cividis", limits=(low, max(high, low + 1e-6)))
    else:
        _channels(ax, values, which)


def _channels(ax: Any, values: Tensor, title: str) -> None:
    """Values ``[K, C]`` of the channels, in the order of the first region's."""
    names = {1: ["all pixels"], 2: ["known", "hole"]}.get(len(values))
    names = names or [f"region {index}" for index in range(len(values))]
    order = values[0].argsort()
    for index, (name, row) in enumerate(zip(names, values, strict=True)):
        colour = (_KNOWN_COLOUR, _HOLE_COLOUR)[index] if len(values) < 3 else f"C{index}"
        marker = "^" if index == 1 else "o"
        ax.plot(row[order].numpy(), marker, color=colour, markersize=2.5, label=name)
    ax.set_title(title, fontsize=_NORMAL)
    ax.set_xlabel("channel, sorted", fontsize=_SMALL, labelpad=1)
    ax.tick_params(labelsize=_SMALL)
    ax.legend(fontsize=_SMALL, frameon=False, markerscale=2)


def _draw_statistics(ax: Any, view: LayerView, what: str) -> None:
    """Medians over the channels, by region and stage."""
    names = list(view.statistics["before"])
    largest = 1.0
    for offset, (stage, (colour, marker, _)) in zip((-0.2, 0, 0.2), _STAGES.items(), strict=True):
        for place, name in enumerate(names):
            found = view.statistics[stage][name]
            values = found.mean[0] if what == "mean" else found.variance[0].sqrt()
            if not torch.isfinite(values).all():
                continue  # the region has no pixels
            low, middle, high = np.percentile(values.numpy(), (_RANGE[0], 50, _RANGE[1]))
            bars = [[middle - low], [high - middle]]
            ax.errorbar([place + offset], [middle], bars, color=colour, marker=marker, ms=4, lw=1)
            largest = max(largest, abs(low), abs(high))
    if largest > _LARGE:
        ax.set_yscale("asinh", linear_width=1)
        most = 10 ** int(np.log10(largest))
        ticks = [sign * step * most for step in (0.1, 0.2, 0.5, 1, 2, 5) for sign in (-1, 1)]
        low, high = ax.get_ylim()
        ax.set_yticks([0, *(tick for tick in ticks if low <= tick <= high)], minor=False)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_ylim(low, high)
    ax.axhline(0 if what == "mean" else 1, color="0.6", lw=0.8, ls="--", zorder=0)
    counts = [float(view.statistics["before"][name].pixels[0]) for name in names]
    labels = [name if count else f"({name})" for name, count in zip(names, counts, strict=True)]
    ax.set_xticks(range(len(names)), labels, fontsize=_SMALL)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_title(f"{what}\nof each region", fontsize=_NORMAL)
    ax.tick_params(axis="y", labelsize=_SMALL)


# --- panels of every kind ------------------------------------------------------------------------


def _map(
    ax: Any,
    view: LayerView,
    values: Tensor,
    title: str,
    *,
    cmap: Any,
    limits: tuple[float, float],
    bar: bool = True,
) -> None:
    """A map with the hole's outline and a colour bar."""
    low, high = limits
    drawn = ax.imshow(values.numpy(), cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    if view.mask.any() and not view.mask.all() and min(view.mask.shape) > 1:
        ax.contour(view.mask.float().numpy(), levels=[0.5], colors=_HOLE_COLOUR, linewidths=0.8)
    _bare(ax, title)
    if bar:
        scale = ax.figure.colorbar(drawn, cax=ax.inset_axes((1.03, 0, 0.05, 1)))
        scale.ax.tick_params(labelsize=_SMALL)


def _picture(ax: Any, pixels: Tensor, title: str) -> None:
    ax.imshow(pixels.numpy())
    _bare(ax, title)


def _bare(ax: Any, title: str) -> None:
    ax.set_title(title, fontsize=_NORMAL)
    ax.set_xticks([])
    ax.set_yticks([])


def _say(ax: Any, text: str) -> None:
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=_NORMAL, color="0.4")


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.0%}"
