"""``make demo`` writes what it promises."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from regionnorm.imaging import read_image, read_mask

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"
NAMES = ["astronaut", "chelsea", "coffee", "rocket"]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory, small_weights: Path) -> Path:
    """What the demo writes."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        command = ["demo.py", "--model", str(small_weights), "--out", str(folder)]
        patch.setattr(sys, "argv", [*command, "--before-after", str(folder / "extra" / "both.png")])
        runpy.run_path(str(DEMO), run_name="__main__")
    return folder


def test_demo_writes_a_sheet_for_each_photo(demo_folder: Path) -> None:
    assert sorted(path.stem for path in demo_folder.glob("*.png")) == NAMES
    assert read_image(demo_folder / "extra" / "both.png").height == 2 * 240 + 8


@pytest.mark.parametrize("name", NAMES)
def test_demo_fills_the_hole_only(demo_folder: Path, name: str) -> None:
    photo, filled = (
        np.asarray(read_image(demo_folder / part / f"{name}.png")) for part in ("photos", "filled")
    )
    hole = read_mask(demo_folder / "masks" / f"{name}.png")
    assert max(photo.shape) <= 512
    assert 0.02 < hole.mean() < 0.2
    assert (photo == filled)[~hole].all()
    assert (photo != filled)[hole].mean() > 0.5


def test_demo_table_compares_with_the_classical_fillers(demo_folder: Path) -> None:
    rows = [line.split("|") for line in (demo_folder / "table.md").read_text().splitlines()]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows if len(row) > 2][2:]
    assert [(row[0], row[3]) for row in cells] == [
        (name, filler) for name in NAMES[:3] for filler in ("regionnorm", "telea", "ns")
    ]
    assert all(20 < float(row[4]) < 60 for row in cells)
