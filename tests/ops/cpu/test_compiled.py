"""Compiled kernels are kept from process to process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import regionnorm

CODE = """
import ctypes
from regionnorm.ops.cpu.kernels import compiled, language as l

x, out, slots = (ctypes.c_float * 4)(3, 1, 4, 2), (ctypes.c_float * 2)(), (ctypes.c_int64 * 24)()
for slot, value in {l.TASKS: 1, l.SAMPLES: 1, l.CHANNELS: 4, l.LENGTH: 1, l.CHUNK: 1}.items():
    slots[slot] = value
slots[l.X], slots[l.OUT] = ctypes.addressof(x), ctypes.addressof(out)
address = compiled.compile_kernel("rows_mean_max", False)
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(slots)
print(out[1], compiled.stamp_of(compiled.FOLDER))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The kernels alone, so that nothing imports PyTorch."""
    ours = Path(next(iter(regionnorm.__path__)))
    inside = tmp_path / "package" / "regionnorm" / "ops" / "cpu"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ours / "ops" / "cpu" / "kernels", inside / "kernels", ignore=ignored)
    files = inside.parents[1] / "files"
    files.mkdir()
    shutil.copy(ours / "files" / "compiled.py", files)
    for folder in (inside, inside.parent, inside.parent.parent, files):
        (folder / "__init__.py").touch()
    return tmp_path / "package"


def run(package: Path, **settings: str) -> tuple[float, Path, set[Path]]:
    """Maximum of 1 to 4, where its code is kept, and the files of that folder."""
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    answer = subprocess.run(
        [sys.executable, "-B", "-c", CODE],
        env=kept | {"PYTHONPATH": str(package)} | settings,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    folder = Path(answer[1]).parent
    return float(answer[0]), folder, set(folder.rglob("*.nbc"))


def test_a_part_that_changes_is_compiled_again(package: Path) -> None:
    maximum, folder, before = run(package)
    assert maximum == 4 and len(before) == 1
    assert folder.is_relative_to(package)
    language = package / "regionnorm" / "ops" / "cpu" / "kernels" / "language.py"
    text = language.read_text()
    assert text.count('fcmp_ordered(">"') == 1
    language.write_text(text.replace('fcmp_ordered(">"', 'fcmp_ordered("<"'))
    assert run(package)[0] == 1
    language.write_text(text)
    maximum, _, after = run(package)
    assert maximum == 4 and after == before


def test_compiled_code_finds_a_place_where_package_and_home_are_read_only(
    package: Path, tmp_path: Path
) -> None:
    # Files where folders would be: a superuser, too, cannot write there.
    (package / "regionnorm" / "ops" / "cpu" / "kernels" / "__pycache__").touch()
    home = tmp_path / "home"
    home.touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)}
    maximum, folder, kept = run(package, **settings)
    assert maximum == 4 and folder.is_relative_to(temporary) and len(kept) == 1


def test_no_folder_is_made_where_the_user_has_no_home(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "regionnorm" / "ops" / "cpu" / "kernels" / "__pycache__").touch()
    monkeypatch.chdir(tmp_path)
    # What "~" stays where neither HOME nor the list of users knows one.
    settings = {"HOME": "~", "XDG_CACHE_HOME": "", "LOCALAPPDATA": "", "TMPDIR": str(tmp_path)}
    assert run(package, **settings)[0] == 4
    assert not (tmp_path / "~").exists()
