"""A study's results as tables, figures and words, and the page that holds them all."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from regionnorm.files.whole import atomic_path

__all__ = ["SECTION", "Figure", "Section", "Table", "read_sections", "write_report"]

SECTION, NOTES = "section.json", "notes.md"


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is words, the others are numbers."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture beside ``section.json``."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """What one study found.

    Attributes:
        study: Its name; also its folder's.
        title: What it shows.
        facts: How it came about: scale, counts, time, versions.
        tables: With the published numbers beside ours.
        figures: In the study's folder.
    """

    study: str
    title: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    def save(self, folder: Path) -> None:
        """Write ``section.json`` and ``README.md``."""
        with atomic_path(folder / SECTION) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        with atomic_path(folder / "README.md") as temporary:
            temporary.write_text(self.to_markdown(folder, level=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Section:
        """Read it back.

        Raises:
            ValueError: The file is damaged.
        """
        path = folder / SECTION
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            tables = tuple(
                Table(t["caption"], tuple(t["header"]), tuple(map(tuple, t["rows"])))
                for t in content["tables"]
            )
            figures = tuple(Figure(**figure) for figure in content["figures"])
            facts = tuple(content["facts"])
            return cls(content["study"], content["title"], facts, tables, figures)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no result of a study ({error}); delete it") from error

    def to_markdown(self, folder: Path, *, level: int = 2, pictures: str = "") -> str:
        """The section as Markdown; ``notes.md`` beside it is taken in.

        Args:
            folder: Where the section lies.
            level: Of its heading.
            pictures: Put before the files' names.
        """
        lines = [f"{'#' * level} {self.title}", ""]
        if notes := _notes(folder):
            lines += [notes, ""]
        for table in self.tables:
            lines += [f"**{table.caption}**", "", _markdown_row(table.header)]
            lines.append("| --- |" + " ---: |" * (len(table.header) - 1))
            lines += [*map(_markdown_row, table.rows), ""]
        for figure in self.figures:
            lines += [
                f"![{figure.caption}]({pictures}{figure.file})",
                "",
                f"*{figure.caption}*",
                "",
            ]
        lines += [*(f"- {fact}" for fact in self.facts), ""]
        return "\n".join(lines)

    def to_html(self, folder: Path) -> str:
        """The section as HTML with its pictures inside."""
        parts = [f'<section id="{self.study}"><h2>{html.escape(self.title)}</h2>']
        if notes := _notes(folder):
            parts += [f"<p>{_bold(html.escape(p))}</p>" for p in notes.split("\n\n")]
        parts += [_html_table(table) for table in self.tables]
        for figure in self.figures:
            data = base64.b64encode((folder / figure.file).read_bytes()).decode("ascii")
            caption = html.escape(figure.caption)
            kind = Path(figure.file).suffix.removeprefix(".")
            parts.append(
                f'<figure><img alt="{caption}" src="data:image/{kind};base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        facts = "".join(f"<li>{html.escape(fact)}</li>" for fact in self.facts)
        parts.append(f'<ul class="facts">{facts}</ul></section>')
        return "\n".join(parts)


def read_sections(out: Path, names: Iterable[str]) -> list[tuple[Path, Section]]:
    """The sections of the studies that have been run, in the order of ``names``."""
    folders = [out / name for name in names]
    return [(f, Section.load(f)) for f in folders if (f / SECTION).is_file()]


def write_report(out: Path, names: Iterable[str]) -> tuple[Path, Path, int]:
    """Write ``report.html``, which holds everything, and ``report.md``.

    Args:
        out: The studies' folder.
        names: Of all studies, in order.

    Returns:
        The two paths and how many studies they hold.

    Raises:
        ValueError: No study has been run, or one's files are damaged.
    """
    sections = read_sections(out, names)
    if not sections:
        raise ValueError(f"{out} holds no finished study; run one first: regionnorm study table2")
    markdown = [f"# {_TITLE}", ""]
    markdown += [s.to_markdown(f, pictures=f"{f.name}/") for f, s in sections]
    links = "".join(
        f'<li><a href="#{s.study}">{html.escape(s.title)}</a></li>' for _, s in sections
    )
    page = [_HEAD, f"<h1>{_TITLE}</h1><nav><ul>{links}</ul></nav>"]
    page += [section.to_html(folder) for folder, section in sections]
    page.append("</main></body></html>")
    paths = out / "report.html", out / "report.md"
    for path, parts in zip(paths, (page, markdown), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return *paths, len(sections)


_TITLE = "Region Normalization for Image Inpainting: tables and figures, repeated"
_HEAD = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_TITLE}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0; }}
main {{ max-width: 62rem; margin: auto; padding: 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #8886; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }}
figure {{ margin: 1rem 0; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
figcaption, .facts {{ font-size: .85rem; opacity: .8; }}
</style></head><body><main>"""


def _notes(folder: Path) -> str:
    path = folder / NOTES
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _bold(text: str) -> str:
    """The one mark of Markdown that notes are likely to hold."""
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text, flags=re.DOTALL)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table><caption>{html.escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
