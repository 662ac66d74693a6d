"""The packages in order: each module imports only from its own package and from those listed before it."""

from __future__ import annotations

import ast
from itertools import chain
from pathlib import Path

import forefend

SOURCE = Path(forefend.__file__).parent
LAYERS = (
    *("checks", "runtime", "losses", "threat_models", "data", "models", "attacks", "recipes", "training"),
    *("evaluation", "report", "serving", "studies", "cli", "__main__"),
)
IMPORT_NOTHING = (
    *("runtime", "models", "threat_models", "training", "evaluation", "report", "serving", "studies", "cli"),
)


def imported_by(path: Path) -> set[str]:
    """The modules of forefend that a file imports, at any depth of it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    named = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name for name in chain(plain, named) if name.startswith("forefend.")}


def layer_of(module: str) -> int:
    return LAYERS.index(module.removeprefix("forefend.").split(".")[0])


def test_modules_import_only_from_their_own_and_earlier_packages() -> None:
    upward = []
    for path in sorted(SOURCE.rglob("*.py")):
        own = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if own != "__init__":  # the public page imports from everywhere
            upward += [f"{own} imports {name}" for name in imported_by(path) if layer_of(name) > layer_of(own)]
    assert upward == []


def test_the_package_root_has_at_most_17_entries() -> None:
    entries = [path.name for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 17
    assert {name.removesuffix(".py") for name in entries} == {*LAYERS, "__init__", "py.typed"}


def test_package_init_files_import_nothing_where_import_must_be_fast() -> None:
    assert [name for name in IMPORT_NOTHING if imported_by(SOURCE / name / "__init__.py")] == []
