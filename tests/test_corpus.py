"""Files of every kind, good and damaged, through the command line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RunCli = Callable[..., tuple[int, str, str]]

FILE = Path(__file__).parents[1] / "benchmarks" / "corpus.py"


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("corpus", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["corpus"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # what Pillow says about damaged files
def test_every_good_file_is_filled_and_every_bad_one_named(
    corpus: ModuleType, tmp_path: Path, run_cli: RunCli, small_weights: Path
) -> None:
    cases = corpus.make_cases(full=False)
    assert len(cases) > 100
    corpus.write_cases(cases, tmp_path / "photos", tmp_path / "masks")
    code, _, err = run_cli(
        "inpaint",
        tmp_path / "photos",
        "--mask",
        tmp_path / "masks",
        "-o",
        tmp_path / "filled",
        "--model",
        small_weights,
        "--report",
        tmp_path / "report.csv",
    )
    assert corpus.check(cases, tmp_path / "filled", code, err) == []
