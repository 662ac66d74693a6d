"""A page in Markdown; drawings and images are replaced by their descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forefend.report.page.blocks import (
    Block,
    Cell,
    Code,
    Commands,
    Facts,
    Figure,
    Gallery,
    Heading,
    Link,
    Notice,
    Page,
    Section,
    Table,
    Text,
    Verdict,
)
from forefend.runtime.formatting import markdown_table


def to_markdown(page: Page) -> str:
    """Return a page in Markdown; characters that would be markup are escaped."""
    parts = [f"# {escaped(page.title)}", escaped(page.subtitle)]
    for section in page.sections:
        parts += _section(section)
    return "\n\n".join(filter(None, [*parts, escaped(page.footer)])) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}" + (f" ({section.grade})" if section.grade else "")
    yield escaped(section.lead)
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"### {escaped(block.text)}"
    elif isinstance(block, Text):
        yield escaped(block.text)
    elif isinstance(block, Notice):
        yield f"> **{block.grade}**: {escaped(block.text)}" + (f" `{block.command}`" if block.command else "")
    elif isinstance(block, Table):
        yield markdown_table([*map(escaped, block.heading)], [[*map(_cell, row)] for row in block.rows])
        yield escaped(block.caption)
    elif isinstance(block, Facts):
        yield markdown_table(["", ""], [[escaped(name), _cell(value)] for name, value in block.rows])
    elif isinstance(block, Verdict):
        yield f"**{escaped(block.sentence)}**"
        yield escaped(block.details)
        yield markdown_table(["", "", ""], [[*map(escaped, (t.label, t.value, t.note))] for t in block.tiles])
    elif isinstance(block, Figure):
        yield f"*{escaped(block.title)}*: {escaped(block.alt)}"
    elif isinstance(block, Gallery):
        yield "\n".join(f"- {escaped(text)}" for _, text in block.rows)
    elif isinstance(block, Commands):
        yield "```\n" + "\n".join(block.lines).replace("```", "` ` `") + "\n```"


def _cell(value: Cell) -> str:
    if isinstance(value, Link):
        return f"[{escaped(value.text)}]({value.address})"
    if isinstance(value, Code) and value.text:
        return f"`{value.text.replace('|', chr(92) + '|').replace('`', chr(39))}`"
    return escaped(str(value)).replace("\n", " ")
