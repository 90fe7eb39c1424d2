"""The README's commands and Python examples work as written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from PIL import Image

from regionnorm.cli import app

RunCli = Callable[..., tuple[int, str, str]]
Maker = Callable[..., Image.Image]

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("regionnorm ")]


@pytest.fixture
def workplace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photo: Maker, make_mask: Maker
) -> Path:
    """A folder like the repository's root after ``make demo``, with smaller photos."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "masks"):
        (tmp_path / "out" / "demo" / folder).mkdir(parents=True)
    for index, name in enumerate(("astronaut", "chelsea", "coffee", "rocket")):
        make_photo(80, 64, seed=index).save(f"out/demo/photos/{name}.png")
        make_mask(80, 64).save(f"out/demo/masks/{name}.png")
    return tmp_path


def test_readme_shows_every_command() -> None:
    shown = {command[1] for command in commands()}
    assert shown == {info.name or info.callback.__name__ for info in app.registered_commands}


@pytest.mark.parametrize("command", commands(), ids=shlex.join)
def test_readme_command_parses(command: list[str]) -> None:
    group = typer.main.get_command(app)
    # Options such as --list print and leave.
    with suppress(typer.Exit), group.make_context("regionnorm", command[1:]) as context:
        _, subcommand, rest = group.resolve_command(context, command[1:])
        with subcommand.make_context(command[1], rest, parent=context) as parsed:
            assert parsed.command.name == command[1]


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_readme_make_target_exists(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_readme_link_leads_to_a_file(path: str) -> None:
    assert (ROOT / path).is_file()


def test_readme_commands_run_one_after_another(run_cli: RunCli, workplace: Path) -> None:
    quick = ["--set", "options.width=2", "--set", "options.blocks=1", "--set", "accelerator=cpu"]
    quick += ["--set", "workers=0", "--set", "size=32"]
    for command in commands():
        # The same commands with a smaller network, photos and masks.
        extra = {"train": quick, "evaluate": ["--size", "64"], "masks": ["--size", "64"]}
        code, _, err = run_cli(*command[1:], *extra.get(command[1], []))
        assert code == 0, (command, err)
    assert len(list((workplace / "out" / "filled").iterdir())) == 4


@pytest.mark.parametrize("code", blocks("python"), ids=["fill", "layers"])
def test_readme_python_runs(workplace: Path, code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})
