"""What holds for large photos: memory, seams in finer steps than the small copy's, no borders."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion import complete as module
from regionnorm.filling.completion import refine
from regionnorm.filling.completion.complete import complete


def test_memory_is_some_arrays_of_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    # As small beside the photo as for megapixels.
    monkeypatch.setattr(module, "_WORK", 2000)
    monkeypatch.setattr(refine, "_MOST", 5000)
    monkeypatch.setattr(module, "_MOST_VIEWED", 10_000)
    rows, columns = np.mgrid[:480, :640]
    stripes = 90 + 80 * ((columns + rows // 3) // 9 % 2)
    image = (stripes[..., None] + np.random.default_rng(0).integers(0, 9, (480, 640, 3))).astype(
        np.uint8
    )
    mask = np.zeros((480, 640), bool)
    mask[90:390, 150:490] = True
    network = np.full_like(image, 128)
    complete(image, mask, network=network)  # compiling takes memory too
    tracemalloc.start()
    try:
        complete(image, mask, network=network)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / mask.size < 76  # bytes; three floating-point channels are 12


@pytest.mark.parametrize(("doublings", "times"), [(2, 0), (4, 2)])
def test_seams_are_moved_where_the_small_copys_pixels_would_show(
    doublings: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    mask = np.zeros((160, 160), bool)
    mask[40:120, 40:120] = True
    monkeypatch.setattr(module, "_WORK", mask.size / 4**doublings)
    moves = []
    original = module.move_seams

    def spied(pixels: Any, hole: Any, down: Any, right: Any, **options: Any) -> None:
        before = down.copy()
        original(pixels, hole, down, right, **options)
        moves.append(bool((before != down).any()))

    monkeypatch.setattr(module, "move_seams", spied)
    complete(image, mask)
    assert moves == [True] * times


def test_warming_up_compiles_what_large_photos_need() -> None:
    program = (
        "from regionnorm.filling.completion import complete, seams; complete.warm_up();"
        "assert seams._weigh.signatures"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
