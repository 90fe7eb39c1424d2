"""Pieces fade into each other at their seams, and are themselves everywhere else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.refine import copied, faded


def test_inside_a_piece_nothing_is_mixed_and_at_a_seam_both_are() -> None:
    pixels = np.random.default_rng(0).random((40, 60, 3)).astype(np.float32)
    pixels[:, :20], pixels[:, 40:] = 0, 1
    hole = np.zeros((40, 60), bool)
    hole[10:30, 20:40] = True
    down, right = np.zeros((40, 60), np.int32), np.zeros((40, 60), np.int32)
    right[10:30, 20:30], right[10:30, 30:40] = -20, 20  # black to the left, white to the right
    hard, soft = pixels.copy(), pixels.copy()
    hard[hole] = copied(pixels, hole, down, right)
    soft[hole] = faded(pixels, hole, down, right)
    assert set(np.unique(hard[hole])) == {0, 1}
    assert np.allclose(soft[10:30, 20:27], hard[10:30, 20:27], atol=1e-6)
    assert np.allclose(soft[10:30, 33:40], hard[10:30, 33:40], atol=1e-6)
    across = soft[20, 26:34, 0]
    assert (np.diff(across) >= -1e-6).all()
    assert across[3] == pytest.approx(1 - across[4], abs=1e-5)
    assert 0.1 < across[3] < 0.5


def test_what_is_painted_fades_into_what_is_copied() -> None:
    pixels = np.zeros((30, 40, 3), np.float32)
    hole = np.zeros((30, 40), bool)
    hole[5:25, 10:30] = True
    pixels[hole] = 1  # painted; what is copied is black
    down, right = np.zeros((30, 40), np.int32), np.zeros((30, 40), np.int32)
    right[5:25, 20:30] = 10
    row = faded(pixels, hole, down, right).reshape(20, 20, 3)[10, :, 0]
    assert np.allclose(row[:7], 1, atol=1e-6)
    assert row[13] == row[19] == 0
    assert (np.diff(row) <= 1e-6).all()
