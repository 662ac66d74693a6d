"""The public page: `forefend.__all__` is complete, in order, and every name keeps its meaning."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import forefend

PAGE = ast.parse(Path(forefend.__file__).read_text())


def _order(name: str) -> tuple[int, str]:
    """Ruff's order: constants, then classes, then all else."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def declared() -> dict[str, str]:
    """Every public name that the page imports, be it for the type checker alone, and the module it comes from."""
    found: dict[str, str] = {}
    for node in ast.walk(PAGE):
        if isinstance(node, ast.ImportFrom) and node.level:
            for name in node.names:
                found[name.asname or name.name] = f"forefend.{node.module}" if node.module else "forefend"
    return found


def test_the_page_is_in_order() -> None:
    assert forefend.__all__ == sorted(set(forefend.__all__), key=_order)


def test_nothing_public_is_left_undeclared() -> None:
    """What the page imports is what it declares; what it makes itself stays private."""
    assert sorted(declared()) == sorted(forefend.__all__)
    made = [node.name for node in PAGE.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    made += [t.id for n in PAGE.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    assert all(name.startswith("_") for name in made)


def _load_everything() -> None:
    for module in pkgutil.iter_modules(forefend.__path__, "forefend."):
        if module.name != "forefend.__main__":
            importlib.import_module(module.name)


@pytest.mark.parametrize("name", forefend.__all__)
def test_every_name_is_what_its_home_calls_so_whatever_was_imported_before(name: str) -> None:
    _load_everything()
    home = declared()[name]
    found = getattr(forefend, name)
    if home == "forefend":
        assert isinstance(found, types.ModuleType)
        assert found.__name__ == f"forefend.{name}"
    else:
        assert found is vars(importlib.import_module(home))[name]


def test_the_first_look_in_a_fresh_process_finds_every_name(python: Callable[..., str]) -> None:
    program = "from forefend import *\nimport forefend\nprint([n for n in forefend.__all__ if n not in globals()])"
    assert python(program) == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'forefend' has no attribute 'defend'"):
        forefend.defend  # noqa: B018
