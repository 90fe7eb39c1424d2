"""The lowest versions that are declared are those that the program is run with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_lowest_versions_are_those_found_to_work() -> None:
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "tests" / "lowest.py")
    assert spec is not None and spec.loader is not None
    lowest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lowest)
    versions = lowest.lowest_versions((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = "torch numpy Pillow numba lightning opencv-python-headless rapidocr fastapi"
    assert {*packages.split(), "fsspec[http]", "huggingface_hub"} <= versions.keys()
    least = {
        "typer": (0, 16),
        "opencv-python-headless": (4, 9, 0, 80),
        "torchmetrics": (1, 8),
        "matplotlib": (3, 8, 4),
    }
    for package, version in least.items():
        assert tuple(map(int, versions[package].split("."))) >= version
