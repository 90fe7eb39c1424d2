"""What ``import regionnorm`` offers, and what it costs."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import regionnorm

ROOT = Path(__file__).parents[1]


def test_public_names_are_the_documented_ones() -> None:
    assert regionnorm.__all__ == [
        "Inpainter",
        "LearnableRegionNorm2d",
        "RegionNorm2d",
        "__version__",
        "convert_region_norm",
        "create_model",
        "export",
        "from_pretrained",
        "list_models",
        "load_pretrained",
        "push_to_hub",
        "region_norm",
    ]


@pytest.mark.parametrize("name", regionnorm.__all__)
def test_every_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(regionnorm, name) is not None
    assert name in dir(regionnorm)


@pytest.mark.parametrize("name", [n for n in regionnorm.__all__ if n != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    assert getattr(regionnorm, name).__doc__


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'region_norms'"):
        regionnorm.region_norms  # noqa: B018


def test_star_import_brings_all_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from regionnorm import *", namespace)
    assert set(regionnorm.__all__) <= set(namespace)


@pytest.mark.parametrize("statement", ["import regionnorm", "import regionnorm.cli"])
def test_importing_does_not_load_torch(statement: str) -> None:
    check = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert importlib.metadata.version("regionnorm") == regionnorm.__version__
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == regionnorm.__version__
    assert f"## {regionnorm.__version__}" in changelog


def test_package_is_marked_as_typed() -> None:
    assert Path(regionnorm.__file__).with_name("py.typed").is_file()
