"""The content of a page: sections of blocks, without any layout. It needs neither torch nor jinja2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

# Grades of evidence, best first; several aggregate to the last of them.
COMPLETE, PARTIAL, MISSING, FAILED = "complete", "partial", "missing", "failed"
GRADES = {
    COMPLETE: "Every item of the section was measured, and none contradicts another.",
    PARTIAL: "Some items were measured.",
    MISSING: "Nothing was measured.",
    FAILED: "A check failed, or records contradict each other.",
}


def worst(grades: Iterable[str]) -> str:
    """Return the worst of some grades; empty grades do not count.

    >>> worst(["complete", "", "missing", "partial"])
    'missing'
    """
    return max((grade for grade in grades if grade), key=list(GRADES).index, default=COMPLETE)


@dataclass(frozen=True)
class Mark:
    """A word with the color of a grade.

    Args:
        grade: one of `GRADES`, or empty for a neutral word.
        text: the word.
    """

    grade: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Link:
    """A text with the address of its source."""

    text: str
    address: str

    def __str__(self) -> str:
        return f"{self.text} ({self.address})"


@dataclass(frozen=True)
class Share:
    """An accuracy, or another share in [0, 1], with its interval; `n` is the number of images."""

    value: float
    low: float
    high: float
    n: int
    bold: bool = False

    def __str__(self) -> str:
        return f"{self.percent} {self.interval} n={self.n}"

    @property
    def percent(self) -> str:
        """The share in percent."""
        return f"{100 * self.value:.1f}"

    @property
    def interval(self) -> str:
        """Its interval in percent."""
        return f"[{100 * self.low:.1f}–{100 * self.high:.1f}]"


@dataclass(frozen=True)
class Code:
    """A command, or another text of a program."""

    text: str

    def __str__(self) -> str:
        return self.text


Cell = str | Mark | Link | Share | Code


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Something that the reader must not miss.

    Args:
        grade: `missing` for what was not measured, `failed` for what is wrong, `partial` for a caution.
        text: one or two sentences.
        command: the command that would fill what is missing; empty for none.
    """

    grade: str
    text: str
    command: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading."""

    heading: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Facts:
    """Names with values."""

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Tile:
    """One large number of a verdict: its name, the number, and under it what it is counted from."""

    label: str
    value: str
    note: str = ""
    grade: str = ""


@dataclass(frozen=True)
class Verdict:
    """The sentence that a page begins with, what it rests on in words, and its numbers."""

    sentence: str
    details: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Args:
        title: what it shows.
        alt: the same in words, for readers who do not see it.
        svg: an `<svg>` element, as `charts` makes it.
        caption: the text under it.
    """

    title: str
    alt: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file with its description, as bytes of PNG."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Rows of images under headings; each row has a text beside it."""

    heading: Sequence[str]
    rows: Sequence[tuple[Sequence[Picture], str]]
    caption: str = ""


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Block = Heading | Text | Notice | Table | Facts | Verdict | Figure | Gallery | Commands


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        id: its anchor.
        title: its heading.
        blocks: its content, in order.
        grade: of its evidence; empty where a grade has no meaning.
        lead: one sentence under the heading.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    grade: str = ""
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: its heading, also in the title bar.
        subtitle: the line under it.
        sections: in order.
        footer: the last line.
        data: the numbers of the page for programs, as JSON values.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    footer: str = ""
    data: Mapping[str, Any] | None = None

    @property
    def grade(self) -> str:
        """The worst grade of its sections."""
        return worst(section.grade for section in self.sections)


def to_json(value: Any) -> Any:
    """Return a page or block as JSON values; drawings and images are left out, as tables hold their numbers."""
    if isinstance(value, Page):
        sections = [to_json(section) for section in value.sections]
        about = {"title": value.title, "subtitle": value.subtitle, "grade": value.grade}
        return about | dict(value.data or {}) | {"sections": sections}
    if is_dataclass(value):
        own = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        own = {name: held for name, held in own.items() if name not in ("svg", "png")}
        return own if isinstance(value, Section) else {"kind": type(value).__name__.lower()} | own
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return value
