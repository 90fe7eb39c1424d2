"""The benchmark of removed objects, with fillers that are here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def removal(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    from removal import cases, fills, pictures

    class Parts:
        pass

    parts: Any = Parts()
    parts.cases, parts.fills, parts.pictures = cases, fills, pictures
    return parts


@pytest.fixture
def two(removal: Any, tmp_path: Path, make_photo: Callable[..., Image.Image]) -> list[Any]:
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    hole = np.zeros((60, 80), np.uint8)
    hole[20:40, 30:50] = 255
    for name in ("a", "b"):
        make_photo(80, 60).save(tmp_path / "photos" / f"{name}.jpg")
        Image.fromarray(hole).save(tmp_path / "masks" / f"{name}.png")
    make_photo(80, 60).save(tmp_path / "photos" / "without-a-mask.jpg")
    found: list[Any] = removal.cases.paired(
        tmp_path / "photos", tmp_path / "masks", 0, tmp_path / "cases"
    )
    return found


def painter(shade: int) -> Callable[..., Any]:
    """Paints the whole picture, known pixels too."""

    def fill(cases: Any, folder: Path) -> Any:
        for case in cases:
            shown = Image.open(case.shown)
            assert np.asarray(shown)[case.hole()].max() == 0  # nothing of what lies under it
            Image.new("RGB", shown.size, (shade,) * 3).save(folder / f"{case.name}.png")
            yield 0.5

    return fill


def test_fills_keep_known_pixels_and_only_missing_ones_are_filled(
    removal: Any, two: list[Any], tmp_path: Path
) -> None:
    folder = tmp_path / "fills"
    assert [case.name for case in two] == ["a", "b"]
    assert removal.fills.fill_missing("gray", painter(100), two, folder) == {"a": 0.5, "b": 0.5}
    filled, hole = np.asarray(Image.open(folder / "a.png")), two[0].hole()
    assert (filled[hole] == 100).all()
    assert (filled[~hole] == two[0].pixels()[~hole]).all()
    (folder / "a.png").unlink()
    removal.fills.fill_missing("gray", painter(200), two, folder)
    assert np.asarray(Image.open(folder / "a.png"))[30, 40, 0] == 200
    assert np.asarray(Image.open(folder / "b.png"))[30, 40, 0] == 100


def test_the_key_of_blind_pictures_is_outside_of_their_folder(
    removal: Any, two: list[Any], tmp_path: Path
) -> None:
    fills = {}
    for shade in (40, 120, 200):
        fills[str(shade)] = tmp_path / "fills" / str(shade)
        removal.fills.fill_missing(str(shade), painter(shade), two, fills[str(shade)])
    blind = tmp_path / "blind"
    key_file = removal.pictures.write_blind(two, fills, blind, 0)
    assert sorted(path.name for path in blind.iterdir()) == ["a.png", "b.png"]
    assert blind not in key_file.parents
    key = json.loads(key_file.read_text())
    assert all(sorted(letters.values()) == sorted(fills) for letters in key.values())
    assert "A" in key["a"]
    orders = [
        removal.pictures.write_blind(two, fills, tmp_path / f"blind{seed}", seed).read_text()
        for seed in range(3)
    ]
    assert len(set(orders)) > 1
    sheet = removal.pictures.sheet(two, fills)
    assert sheet.width > 5 * 200


def test_whole_pictures_for_a_judge_are_at_their_own_size_and_show_no_hole(
    removal: Any, two: list[Any], tmp_path: Path
) -> None:
    fills = {str(shade): tmp_path / "fills" / str(shade) for shade in (40, 120, 200)}
    for shade, folder in fills.items():
        removal.fills.fill_missing(shade, painter(int(shade)), two, folder)
    key_file = removal.pictures.write_blind(two, fills, tmp_path / "blind", 0, whole=True)
    picture = np.asarray(Image.open(tmp_path / "blind" / "a.png"))
    assert not (picture == (255, 0, 255)).all(axis=-1).any()
    order = json.loads(key_file.read_text())["a"]
    for letter, (top, left) in {"A": (0, 0), "B": (0, 1), "C": (1, 0)}.items():
        expected = two[0].filled(fills[order[letter]] / "a.png")
        height, width = expected.shape[:2]
        y, x = 24 + top * (height + 24 + 6), 6 + left * (width + 6)
        assert (picture[y : y + height, x : x + width] == expected).all(), letter


def test_a_program_that_fails_says_why(removal: Any) -> None:
    script = "import sys; print('0.25', flush=True); sys.exit('no such filter')"
    answers = removal.fills._answers([sys.executable, "-c", script], "")
    assert next(answers) == 0.25
    with pytest.raises(RuntimeError, match="no such filter"):
        next(answers)
