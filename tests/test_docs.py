"""The code blocks of the README and of every page of the documentation work as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tomllib
import typer
from PIL import Image, ImageDraw, ImageFont

from regionnorm.checkpoints.weights import save_weights
from regionnorm.cli import app
from regionnorm.filling.inpainter import Inpainter
from regionnorm.models import create_model

RunCli = Callable[..., tuple[int, str, str]]
Maker = Callable[..., Image.Image]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OUTPUT = ("", "bibtex", "text")  # blocks of these languages show something; nothing runs them

# What a page leaves open.
PLACEHOLDERS = {"TRAIN": "photos", "VAL": "val", "RUN": "runs/first"}
# The same commands with smaller networks, photos and masks.
SMALL = {"evaluate": ["--size", "64"], "masks": ["--size", "64"]}
SMALL_TRAINING = {
    "options.width": 2,
    "options.blocks": 1,
    "accelerator": "cpu",
    "workers": 0,
    "size": 32,
    "steps": 2,
    "batch": 2,
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and code of each block, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def lines(code: str) -> list[list[str]]:
    """The commands of a shell block as lists of words, without variables set in front of them."""
    joined = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(re.sub(r"(^|\s)#.*", "", line)) for line in joined]
    return [[word for word in line if not re.match(r"[A-Z_]+=", word)] for line in words if line]


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for language, code in blocks(page):
            for line in lines(code) if language == "sh" else ():
                yield name_of(page), line


OURS = [(page, line) for page, line in commands() if line[0] == "regionnorm"]


@pytest.fixture
def workplace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photo: Maker, make_mask: Maker
) -> Path:
    """A folder with every file that the pages name, and what ``make demo`` leaves, but smaller."""
    monkeypatch.chdir(tmp_path)
    for parent in (Path(), Path("out/demo")):
        for folder in ("photos", "masks", "val"):
            (parent / folder).mkdir(parents=True)
        for index, name in enumerate(("astronaut", "chelsea", "coffee", "rocket")):
            make_photo(80, 64, seed=index).save(parent / "photos" / f"{name}.png")
            make_photo(80, 64, seed=index).save(parent / "val" / f"{name}.png")
            make_mask(80, 64).save(parent / "masks" / f"{name}.png")
    photo, mask = make_photo(80, 64), make_mask(80, 64)
    photo.save("photo.jpg", quality=95, subsampling=0)
    mask.save("mask.png")
    mask.save("stroke.png")
    make_mask(40, 32).save("logo.png")
    scratched = photo.copy()
    scratched.paste("white", (10, 20, 70, 22))
    scratched.save("scan.tif")
    frame = make_photo(320, 200)
    ImageDraw.Draw(frame).text((30, 150), "A subtitle", "white", ImageFont.load_default(30))
    frame.save("frame.png")
    painted = photo.copy()
    painted.paste("#ff00ff", mask=mask)
    painted.save("painted.png")
    Path("released.pth").touch()
    photo.putalpha(mask.point(lambda level: 255 - level))
    photo.save("cutout.png")
    return tmp_path


@pytest.fixture(scope="module")
def service(small_weights: Path) -> Iterator[str]:
    """The address of a running app."""
    from regionnorm.web.server import AppOptions, running

    with running(Inpainter(small_weights), AppOptions(port=0)) as (_, url):
        yield url


# --- what the pages show -------------------------------------------------------------------------


def test_pages_show_every_command() -> None:
    shown = {line[1] for _, line in OURS if len(line) > 1}
    assert shown >= {info.name or info.callback.__name__ for info in app.registered_commands}


@pytest.mark.parametrize("line", [line for _, line in OURS], ids=shlex.join)
def test_command_parses(line: list[str]) -> None:
    group = typer.main.get_command(app)
    # Options such as --list print and leave.
    with suppress(typer.Exit), group.make_context("regionnorm", line[1:]) as context:
        _, subcommand, rest = group.resolve_command(context, line[1:])
        with subcommand.make_context(line[1], rest, parent=context) as parsed:
            assert parsed.command.name == line[1]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).is_file(), target


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(\S+\.md)$", text, re.MULTILINE))
    made = {"commands.md"}  # while the site is built, by a hook
    assert listed == made | {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}


def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "api" / "filling.html").is_file()


# --- running them --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_of_a_page_runs_from_top_to_bottom(
    page: Path,
    request: pytest.FixtureRequest,
    run_cli: RunCli,
    workplace: Path,
    small_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The app and the service would not come back; the released weights are not ours to ship.
    monkeypatch.setattr("regionnorm.web.serve", lambda *_, **__: None)
    monkeypatch.setattr("regionnorm.serving.serve", lambda *_, **__: None)
    released = create_model("rn", width=4, blocks=1)

    def convert(_: Path, target: Path) -> object:
        save_weights(released, target)
        return released

    monkeypatch.setattr("regionnorm.checkpoints.weights.convert_released", convert)
    # Nothing is fetched; the page itself has tests of its own.
    monkeypatch.setattr("regionnorm.web.site.fetch_runtime", lambda: b"")
    monkeypatch.setattr("regionnorm.web.site._runtime_files", lambda _: {})
    namespace: dict[str, object] = {}
    for language, code in blocks(page):
        if language == "python":
            if "http://127.0.0.1:7860/" in code:
                code = code.replace("http://127.0.0.1:7860/", request.getfixturevalue("service"))
            exec(compile(code, name_of(page), "exec"), namespace)
        elif language == "sh":
            for line in lines(code):
                run_line(line, run_cli, small_weights)
        else:
            assert language in OUTPUT, f"nothing runs {language} blocks"


def run_line(line: list[str], run_cli: RunCli, small_weights: Path) -> None:
    if line[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{line[1]}:", makefile, re.MULTILINE)
    elif line[:2] == ["pip", "install"]:
        package, extra = re.fullmatch(r"(\w+)\[(\w+)\]", line[2]).groups()
        assert package == PROJECT["name"]
        assert extra in PROJECT["optional-dependencies"]
    elif line[0] == "regionnorm":
        words = [PLACEHOLDERS.get(word, word) for word in line]
        code, _, err = run_cli(*words[1:], *smaller(line, small_weights))
        assert code == 0, (shlex.join(line), err)
    else:
        assert line == ["source", ".venv/bin/activate"]


def smaller(line: list[str], small_weights: Path) -> list[str]:
    if line[1] == "inpaint" and "--model" not in line:
        return ["--model", str(small_weights)]
    if line[1] == "train" and "--list" not in line:
        given = dict(word.split("=", 1) for word in line if "=" in word)
        # A few steps stay what they are: the page goes on from them.
        few = {"steps"} if int(given.get("steps", 100)) < 100 else set()
        settings = {k: v for k, v in SMALL_TRAINING.items() if k not in few}
        return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return SMALL.get(line[1], [])
