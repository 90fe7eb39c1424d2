"""A browser for the app's tests is found where it is, and fetched in the first way that works."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Command = Callable[..., Path]
PLAYWRIGHT = [[sys.executable, "-m", "playwright", "install", "chromium"]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its commands are shell scripts")


@pytest.fixture(scope="module")
def browsers() -> ModuleType:
    path = Path(__file__).with_name("browser.py")
    spec = importlib.util.spec_from_file_location("browser", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``command(name, script)``: a command that PATH finds; of the system's there is only sh."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shell = shutil.which("sh", path=os.defpath)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!{shell}\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def test_any_browser_on_the_path_is_found_if_it_starts(
    browsers: ModuleType, command: Command
) -> None:
    assert browsers.find_browser() is None
    command("chromium", "echo this command only points to a snap; exit 1")
    assert browsers.find_browser() is None
    chrome = command("google-chrome", "echo Chrome 1")
    assert browsers.find_browser() == str(chrome)
    chromium = command("chromium", "echo Chromium 1")
    assert browsers.find_browser() == str(chromium)


def test_root_takes_the_systems_package_and_then_playwrights(
    browsers: ModuleType, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsers.os, "geteuid", lambda: 0, raising=False)
    assert list(browsers.ways()) == [PLAYWRIGHT]  # no apt-get here
    command("apt-get", "exit 0")
    first, second = browsers.ways()
    assert [words[:2] for words in first] == [["apt-get", "update"], ["apt-get", "install"]]
    assert first[1][-1] == "chromium"
    assert second == PLAYWRIGHT


def test_others_use_sudo_only_where_it_asks_nothing(
    browsers: ModuleType, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsers.os, "geteuid", lambda: 1000, raising=False)
    command("apt-get", "exit 0")
    assert list(browsers.ways()) == [PLAYWRIGHT]
    command("sudo", "echo a password is required >&2; exit 1")
    assert list(browsers.ways()) == [PLAYWRIGHT]
    command("sudo", "exit 0")
    first, second = browsers.ways()
    assert [words[:2] for words in first] == [["sudo", "-n"]] * 2
    assert second == PLAYWRIGHT


@pytest.mark.parametrize("apt", ["works", "fails"])
def test_the_first_way_that_leaves_a_browser_is_the_last_one_tried(
    browsers: ModuleType, command: Command, monkeypatch: pytest.MonkeyPatch, apt: str
) -> None:
    monkeypatch.setattr(browsers.os, "geteuid", lambda: 0, raising=False)
    folder = command("apt-get", "").parent
    chmod = shutil.which("chmod", path=os.defpath)
    made = f"printf '#!/bin/sh\\n' > {folder}/NAME; {chmod} +x {folder}/NAME"
    works = f'[ "$1" = update ] || {{ {made.replace("NAME", "chromium")}; }}'
    command("apt-get", works if apt == "works" else "exit 100")
    download = command("playwright", made.replace("NAME", "google-chrome"))
    system, _ = browsers.ways()
    monkeypatch.setattr(browsers, "ways", lambda: [system, [[str(download)]]])
    name = "chromium" if apt == "works" else "google-chrome"
    assert browsers.install() == str(folder / name)
    assert browsers.install() == str(folder / name)  # found, nothing to fetch
    assert sorted(path.name for path in folder.iterdir()) == ["apt-get", name, "playwright"]


def test_without_a_browser_one_line_says_what_to_install(browsers: ModuleType) -> None:
    assert re.search("install .*chromium", browsers.ADVICE)
    assert "\n" not in browsers.ADVICE
