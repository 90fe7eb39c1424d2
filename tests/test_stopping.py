"""Fills and searches that nobody waits for any more are given up between their steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from regionnorm.filling.inpainter import Inpainter
from regionnorm.masks.lines import find_lines
from regionnorm.masks.scratches import find_scratches
from regionnorm.masks.selection.select import select_object
from regionnorm.stopping import Stopped, stop_between_layers, stoppable

Maker = Callable[..., Image.Image]


@pytest.mark.parametrize("method", ["network", "exemplar"])
def test_fill_can_be_given_up_at_each_of_its_steps(
    make_photo: Maker, small_weights: Path, method: str
) -> None:
    inpainter = Inpainter(small_weights, method=method)
    photo, hole = make_photo(96, 96), np.zeros((96, 96), bool)
    hole[30:66, 30:66] = True
    asked = 0

    def ask(last: float) -> bool:
        nonlocal asked
        asked += 1
        return asked >= last

    with stop_between_layers(inpainter.model):
        with stoppable(lambda: ask(np.inf)):
            inpainter(photo, hole)
        steps, asked = asked, 0
        assert steps >= 5
        with stoppable(lambda: ask(steps)), pytest.raises(Stopped):
            inpainter(photo, hole)
    assert asked == steps
    # Outside, nobody asks.
    inpainter(photo, hole)
    assert asked == steps


def select_box(colours: npt.NDArray[np.uint8]) -> object:
    return select_object(colours, box=(20, 10, 60, 40), segmenter=None)


@pytest.mark.parametrize(
    ("find", "size", "least"),
    [
        (find_scratches, (900, 60), 2),
        (find_lines, (80, 60), 1),
        (select_box, (80, 60), 2),
    ],
)
def test_search_can_be_given_up_at_each_of_its_steps(
    make_photo: Maker, find: Callable[[Any], object], size: tuple[int, int], least: int
) -> None:
    colours = np.asarray(make_photo(*size))
    for last in range(1, least + 1):
        asked = 0

        def ask(last: int = last) -> bool:
            nonlocal asked
            asked += 1
            return asked >= last

        with stoppable(ask), pytest.raises(Stopped):
            find(colours)
        assert asked == last
