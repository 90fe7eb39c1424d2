"""Writes the page of commands and options while the site is built, from the program's own help."""

from __future__ import annotations

import re
import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROGRAM = "regionnorm"
INTRODUCTION = f"""# Commands and options

What `{PROGRAM} --help` and `{PROGRAM} COMMAND --help` print.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page, which the navigation names."""
    files.append(File.generated(config, "commands.md", content=INTRODUCTION + describe()))
    return files


def describe() -> str:
    """All commands as Markdown, a section each, with their examples as code."""
    command = [sys.executable, "-m", "typer", "regionnorm.cli", "utils", "docs", "--name", PROGRAM]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sections = text[text.index(f"## `{PROGRAM} ") :].replace("\b\n", "")  # click's "as it is"
    return re.sub(r"^Example:\n((?:  .*\n)+)", _fenced, sections, flags=re.MULTILINE)


def _fenced(example: re.Match[str]) -> str:
    lines = "\n".join(line.strip() for line in example[1].splitlines())
    return f"```sh\n{lines}\n```\n"
