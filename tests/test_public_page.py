"""The public page: every name in `forefend.__all__` resolves to the object that its own module defines."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import forefend


def declared_for_type_checkers() -> set[str]:
    tree = ast.parse(Path(forefend.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {name.asname or name.name for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}


def test_every_name_is_sorted_and_declared_for_type_checkers() -> None:
    assert dir(forefend) == forefend.__all__ == sorted(set(forefend.__all__))
    assert declared_for_type_checkers() == set(forefend.__all__) - {"__version__"}


@pytest.mark.parametrize("name", sorted(forefend._NAMES))
def test_name_is_the_object_of_its_module(name: str) -> None:
    module = importlib.import_module(f"forefend.{forefend._NAMES[name]}")
    assert getattr(forefend, name) is vars(module)[name]


@pytest.mark.parametrize("name", sorted(forefend._MODULES))
def test_module_is_the_one_named(name: str) -> None:
    assert getattr(forefend, name) is importlib.import_module(f"forefend.{forefend._MODULES[name]}")


def test_star_import_in_a_fresh_process_finds_every_name(python: Callable[..., str]) -> None:
    program = "from forefend import *\nimport forefend\nprint([n for n in forefend.__all__ if n not in globals()])"
    assert python(program) == "[]"


def test_version_is_that_of_the_distribution() -> None:
    assert forefend.__version__ == metadata.version("forefend")


def test_types_are_distributed() -> None:
    assert (Path(forefend.__file__).parent / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'forefend' has no attribute 'defend'"):
        forefend.defend  # noqa: B018
