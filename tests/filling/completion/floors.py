"""A tiled floor that recedes towards a horizon, drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def floor(
    height: int, width: int, horizon: float, tile: float, column: float | None = None
) -> Floats:
    """Light joints between dark tiles, float32 ``[height, width, 3]``, averaged over pixels.

    Args:
        height: Rows.
        width: Columns.
        horizon: The row of the horizon, above the picture.
        tile: Columns of a tile in the last row.
        column: Where the joints that lead away from the viewer meet on the horizon.
    """
    fine = 4
    rows = (np.arange(height * fine) + 0.5)[:, None] / fine - horizon
    columns = (np.arange(width * fine) + 0.5)[None] / fine - (
        width / 2 if column is None else column
    )
    unit = tile / (height - horizon)
    across, away = columns / rows / unit, 1 / rows / unit * (height - horizon)
    joint = (across % 1 < 0.15) | (away % 1 < 0.15)
    mean = np.where(joint, 0.9, 0.3).reshape(height, fine, width, fine).mean(axis=(1, 3))
    return np.repeat(mean[..., None], 3, axis=2).astype(np.float32)
