"""Sphinx configuration: guides in Markdown, API reference from the docstrings. The build fetches nothing."""

from __future__ import annotations

import inspect
import re
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "forefend"
# The layers, lowest first; the command line is documented by its --help, the server by its guide and OpenAPI.
PACKAGES = ["runtime", "threat_models", "data", "models", "attacks", "recipes", "training", "evaluation", "report"]
PACKAGES += ["studies"]

project = "forefend"
author = "The forefend authors"
release = version = metadata.version("forefend")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "forefend"
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
# Docstrings write code in single backticks, as Markdown does.
default_role = "literal"
# Public names are documented twice: on the public page and in their package.
suppress_warnings = ["ref.python"]


def write_reference(app: Sphinx) -> None:
    """Write one page for each package, with a section for each of its public modules."""
    folder = ROOT / "docs" / "reference"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for package in PACKAGES:
        files = sorted((SOURCE / package).rglob("*.py"), key=lambda file: (file.parent, file.name != "__init__.py"))
        sections = [_section(file) for file in files if not re.match(r"_[^_]", file.name)]
        (folder / f"{package}.md").write_text(f"# forefend.{package}\n\n" + "\n".join(sections))
    checks = [_section(SOURCE / f"{name}.py") for name in ("checks", "losses")]
    (folder / "root.md").write_text("# forefend.checks and forefend.losses\n\n" + "\n".join(checks))


def _section(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    options = ":members:\n   :ignore-module-all:"
    return f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   {options}\n```\n"


def point_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """Name the file where a link leads to the repository outside of docs/, which the site does not hold."""
    here = (ROOT / "docs" / page).parent

    def plain(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if re.match(r"[a-z]+:|#", link[2]) or target.is_relative_to(ROOT / "docs"):
            return link[0]
        return f"{link[1]} (`{target.relative_to(ROOT)}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", plain, source[0])


def escape(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape what reStructuredText reads as markup in a docstring, outside code and examples."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            pieces = re.split(r"(`[^`]*`)", line)
            lines[number] = "".join(p if p.startswith("`") else re.sub(r"([*|]|_\b)", r"\\\1", p) for p in pieces)


def is_default(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out functions that are the default of a dataclass field, which autodoc takes for methods."""
    return True if what == "class" and inspect.isfunction(member) and "." not in member.__qualname__ else None


def name_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write the name of a default function, so that the signature parses."""
    return signature and re.sub(r"<(?:function|class) '?(?:\w+\.)*(\w+)[^>]*>", r"\1", signature), returns


def setup(app: Sphinx) -> None:
    """Connect the steps above."""
    app.connect("autodoc-skip-member", is_default)
    app.connect("autodoc-process-signature", name_defaults)
    app.connect("builder-inited", write_reference)
    app.connect("source-read", point_outside)
    app.connect("autodoc-process-docstring", escape, priority=100)
