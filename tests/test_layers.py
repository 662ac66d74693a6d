"""The map of the house and its guard: imports go to floors below, or to entries earlier on the same floor."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import forefend

# A name that ends in "/" is a shelf: a folder of interchangeable siblings.
FLOORS: list[list[str]] = [
    [  # words
        *("checks", "interval", "paired", "binomial", "records", "certificates", "summary", "draw", "threat"),
        *("couplings", "wasserstein", "losses", "modes", "precision", "interrupt", "progress", "room", "threads"),
    ],
    [  # images and networks
        *("corruptions/", "data/", "classifiers/", "discriminators/", "preprocessors/", "guides", "defense"),
        *("folding", "fast", "compute"),
    ],
    ["attacks/"],  # adversaries
    [  # papers
        *("recipe", "inner", "crafting", "validation", "recipes/"),
        *("running", "trial", "swift", "suites/", "settings"),
    ],
    [  # doing
        *("processes", "checkpoint", "lowered", "averaging", "growing", "batches", "collapse"),
        *("ways", "begun", "train", "trained", "budget", "named", "noisy"),
        *("launch", "docket", "asked", "subject", "probes", "suitable", "evaluation", "cost", "evidence", "findings"),
        *("masking", "certify", "corrupted_accuracy"),
        *("ratios", "stopwatch", "rounds", "hosts", "targets", "bench/", "questions", "worker"),
    ],
    ["tables", "radii", "corruption_table", "comparison", "speeds", "figures"],  # telling
    ["jobs/", "commands/", "cli", "__init__", "__main__"],  # the door
]
WITHOUT_TORCH = [  # and every command, until it goes to work
    *("records", "summary", "interval", "paired", "checks", "cli", "binomial", "certificates", "radii"),
    *("asked", "evidence", "findings", "comparison", "ratios", "rounds", "hosts", "speeds"),
]
NAMELESS = {"utils", "util", "common", "core", "helpers", "helper", "misc"}

SOURCE = Path(forefend.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
ORDER = {entry: (floor, place) for floor, entries in enumerate(FLOORS) for place, entry in enumerate(entries)}
IDS = [file.relative_to(SOURCE).as_posix() for file in FILES]
EACH = pytest.mark.parametrize("file", FILES, ids=IDS)
SHELVES = sorted(entry for entry in ORDER if entry.endswith("/"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def entry_of(file: Path) -> str:
    """The place on the map that a file belongs to."""
    parts = file.relative_to(SOURCE).parts
    return f"{parts[0]}/" if len(parts) > 1 else file.stem


def modules_of(file: Path, node: ast.ImportFrom) -> Iterator[Path]:
    """The files of this package that one relative import reads."""
    folder = file.parents[node.level - 1]
    base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
    for name in node.names:
        for module in (base / f"{name.name}.py", base / name.name / "__init__.py", base.with_suffix(".py")):
            if module.exists():
                yield module
                break
        else:
            yield base / "__init__.py"


def imported_by(file: Path, *, when_loaded: bool = False) -> set[Path]:
    """Files of this package that `file` imports; on request only those read when it is loaded itself."""
    nodes = _when_loaded(tree(file).body) if when_loaded else ast.walk(tree(file))
    found = {m for n in nodes if isinstance(n, ast.ImportFrom) and n.level for m in modules_of(file, n)}
    return found - {file}


def _when_loaded(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run at import: not those inside functions, nor those for the type checker alone."""
    for node in body:
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if for_types or isinstance(node, ast.FunctionDef):
            continue
        yield node
        for part in ("body", "orelse", "handlers", "finalbody"):
            yield from _when_loaded(getattr(node, part, []))


def outsiders(file: Path) -> set[str]:
    """Packages beside ours that `file` imports when it is loaded."""
    found: set[str] = set()
    for node in _when_loaded(tree(file).body):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found


@EACH
def test_every_file_is_on_the_map(file: Path) -> None:
    assert entry_of(file) in ORDER, f"{file} has no place: put it on a floor of this map and in ARCHITECTURE.md"
    assert file.stem not in NAMELESS, f"{file.name} says nothing of what it holds"


@pytest.mark.parametrize("entry", ORDER)
def test_every_place_on_the_map_is_a_file_or_a_shelf(entry: str) -> None:
    assert (SOURCE / entry / "__init__.py").exists() if entry.endswith("/") else (SOURCE / f"{entry}.py").exists()


@EACH
def test_imports_go_down(file: Path) -> None:
    mine = entry_of(file)
    for other in sorted(imported_by(file)):
        theirs = entry_of(other)
        assert other.exists(), f"{file} imports {other}, which does not exist"
        assert {mine, theirs} <= ORDER.keys(), f"{mine} imports {theirs}, and one of them has no place on the map"
        assert mine == theirs or ORDER[theirs] < ORDER[mine], f"{mine} imports {theirs}, which is not below it"


@EACH
def test_our_own_are_imported_relatively_and_one_by_one(file: Path) -> None:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] == "forefend" for name in node.names), f"{file}:{node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.level or str(node.module).split(".")[0] != "forefend", f"{file}:{node.lineno}"
            assert all(name.name != "*" for name in node.names), f"{file}:{node.lineno} imports everything"


@EACH
def test_no_text_is_run_as_code(file: Path) -> None:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"{file}:{node.lineno}"


@pytest.mark.parametrize("shelf", SHELVES)
def test_siblings_on_a_shelf_do_not_go_round_in_circles(shelf: str) -> None:
    siblings = {file for file in FILES if entry_of(file) == shelf}
    order = list(TopologicalSorter({file: imported_by(file) & siblings for file in siblings}).static_order())
    assert set(order) == siblings


def test_attacks_know_words_and_nothing_of_networks() -> None:
    read = {entry_of(other) for file in FILES if entry_of(file) == "attacks/" for other in imported_by(file)}
    assert {ORDER[entry][0] for entry in read - {"attacks/"}} == {0}


def loaded_with(file: Path) -> set[Path]:
    """`file` and everything of this package that is loaded with it."""
    found, todo = set(), [file]
    while todo:
        module = todo.pop()
        if module in found:
            continue
        found.add(module)
        shelf = module.parent / "__init__.py"
        todo += [*imported_by(module, when_loaded=True), shelf, SOURCE / "__init__.py"]
    return found


@pytest.mark.parametrize("entry", WITHOUT_TORCH)
def test_reading_records_and_asking_for_help_need_no_torch(entry: str) -> None:
    for file in loaded_with(SOURCE / f"{entry}.py"):
        assert not outsiders(file) & {"torch", "accelerate", "safetensors", "numpy"}, f"{entry} loads {file}"


def test_torch_stays_away_when_the_door_opens(python: Callable[..., str]) -> None:
    commands = [f"commands.{file.stem}" for file in FILES if entry_of(file) == "commands/" and file.stem != "__init__"]
    names = ", ".join(f"forefend.{name}" for name in WITHOUT_TORCH + commands)
    program = f"import {names}, sys\nforefend.cli.main(['--help'])\nprint('torch' in sys.modules)"
    assert python(program).splitlines()[-1] == "False"


def test_the_guard_reads_imports_of_every_form(tmp_path: Path) -> None:
    """The guard guards itself: each way to write an import is resolved to the file it reads."""
    probe = tmp_path / "probe.py"
    lazy = "def f():\n    from .b.d import g\nif TYPE_CHECKING:\n    from .b.c import h\n"
    probe.write_text("from . import a, nothing\nfrom .b import d, Thing\n" + lazy)
    inside = tmp_path / "b" / "d.py"
    for made in ("a.py", "b/__init__.py", "b/c.py"):
        (tmp_path / made).parent.mkdir(exist_ok=True)
        (tmp_path / made).touch()
    inside.write_text("from .. import a\nfrom . import Thing\nfrom .c import other\nfrom ..b.missing import it\n")

    def names(files: set[Path]) -> set[str]:
        return {file.relative_to(tmp_path).as_posix() for file in files}

    assert names(imported_by(probe)) == {"a.py", "__init__.py", "b/__init__.py", "b/c.py", "b/d.py"}
    assert names(imported_by(probe, when_loaded=True)) == {"a.py", "__init__.py", "b/__init__.py", "b/d.py"}
    assert names(imported_by(inside)) == {"a.py", "b/__init__.py", "b/c.py", "b/missing/__init__.py"}
