"""The pages of papers: one for each recipe. They quote code that is in the files and commands that can be typed.

A page names its files after `Code:`. In its table "Equations and lines", text in backticks is found in those files
letter for letter (… leaves something out), or in a file that the same row names, or it is a name: of a function or a
class, or `Class.method`, or `module.name`.
"""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from forefend.cli import certify, evaluate, train
from forefend.recipes import RECIPES
from forefend.recipes.hyperparameters import build, hyperparameters_of
from forefend.training.catastrophic_overfitting import ON_DETECTION
from forefend.training.crafting import ATTACK_COPIES
from forefend.training.inner_attacks import INNER_ATTACKS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "forefend"
SECTIONS = ["Equations and lines", "Departures", "Command", "Our numbers beside theirs"]
ALL = sorted((ROOT / "docs" / "papers").glob("*.md"))
EACH = pytest.mark.parametrize("page", ALL, ids=[page.stem for page in ALL])


def section(page: Path, title: str) -> str:
    """The text under a heading."""
    return page.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def code_files(page: Path) -> list[Path]:
    """The files that the head of a page names."""
    head = page.read_text().split("\n## ")[0]
    return [ROOT / name for name in re.findall(r"`(src/[\w/]+\.py)`", head.split("Code:")[1])]


def quotes(page: Path) -> list[tuple[str, str]]:
    """Each piece of code in the right-hand column of the table, with the text of the files that should contain it."""
    found = []
    for row in re.findall(r"^\|.*\|(.*)\|$", section(page, "Equations and lines"), re.M):
        pieces = re.findall(r"`([^`]+)`", row)
        named = [SOURCE / piece for piece in pieces if piece.endswith(".py")]
        text = "\n".join(file.read_text() for file in code_files(page) + named)
        found += [(piece, text) for piece in pieces if not piece.endswith(".py")]
    return found


def contains(text: str, piece: str) -> bool:
    """Whether a text contains a piece of code, its parts between … in their order on one line."""
    return re.search(".*".join(re.escape(part) for part in piece.split("…")), text) is not None


def is_name(piece: str) -> bool:
    """Whether a piece is the name of something in the package: `name`, `Class.method` or `module.name`."""
    if not re.fullmatch(r"\w+(\.\w+)?", piece):
        return False
    owner, _, name = piece.rpartition(".")
    files = list(SOURCE.rglob("*.py"))
    if owner:
        texts = [file.read_text() for file in files]
        modules = [f.read_text() for f in files if owner in (f.stem, f.parent.name)]
        texts = [text for text in texts if re.search(rf"^class {owner}\b", text, re.M)] or modules
    else:
        texts = [file.read_text() for file in files]
    return any(re.search(rf"^ *(def|class) {name}\b", text, re.M) for text in texts)


def commands(page: Path) -> list[list[str]]:
    """The words of each command on a page."""
    blocks = re.findall(r"```\n(.*?)```", section(page, "Command"), re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("forefend ")]


def recipes_of(page: Path) -> list[str]:
    """The recipes whose source file the page names."""
    files = code_files(page)
    return [name for name, recipe in RECIPES.items() if Path(inspect.getfile(recipe)) in files]


def test_each_recipe_has_a_page_with_its_command() -> None:
    for recipe in RECIPES:
        pages = [page for page in ALL if recipe in recipes_of(page)]
        assert len(pages) == 1, f"docs/papers has {len(pages)} pages that name the file of {recipe}"
        assert recipe in [words[1] for words in commands(pages[0]) if words[0] == "train"]


@EACH
def test_page_has_its_sections_and_names_its_code(page: Path) -> None:
    titles = re.findall(r"^## (.*)$", page.read_text(), re.M)
    assert [title for title in titles if not title.startswith("What the paper")] == SECTIONS
    assert len(titles) == len(SECTIONS) + 1
    assert code_files(page)
    assert all(file.exists() for file in code_files(page))


@EACH
def test_quoted_code_is_in_its_file(page: Path) -> None:
    pieces = quotes(page)
    assert len(pieces) > 3
    assert [piece for piece, text in pieces if not contains(text, piece) and not is_name(piece)] == []


@EACH
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(name: str, options: Any) -> Path:
        build(RECIPES[name], {s.name: options[s.name] for s in hyperparameters_of(RECIPES[name])})
        return Path("runs")

    monkeypatch.setattr(train, "_run", trained)
    monkeypatch.setattr(evaluate, "_run", lambda options, words: "")
    monkeypatch.setattr(certify, "_run", lambda options: "")
    assert commands(page)
    for verb, *words in commands(page):
        assert {"train": train.main, "evaluate": evaluate.main, "certify": certify.main}[verb](words) == 0


@EACH
def test_options_in_the_text_exist(page: Path) -> None:
    recipes = recipes_of(page) or ["rtfe"]
    fields = {setting.name.replace("_", "-") for recipe in recipes for setting in hyperparameters_of(RECIPES[recipe])}
    shared = {"allow-weak-classifier", "classifier", "guides", "preprocessor", "source", "suite", "threat"}
    shared |= {"attacks", "augmentation", "cumulative"}
    text = page.read_text().split("## Command")[0]
    assert set(re.findall(r"--([a-z][\w-]*)", text)) <= fields | shared


def test_a_wrong_quotation_is_found() -> None:
    text = "x_adv = attack(f, x, y)\n"
    assert contains(text, "attack(f, x, y)")
    assert contains(text, "attack(…, y)")
    assert not contains(text, "attack(f, y)")
    assert is_name("PGD.advance")
    assert not is_name("PGD.nothing")


def test_train_faster_names_each_option_and_no_other() -> None:
    text = (ROOT / "docs" / "guides" / "train-faster.md").read_text()
    config = {"attack-copy": ATTACK_COPIES, "inner-attack": INNER_ATTACKS, "on-overfitting": ON_DETECTION}
    told = {match for match in re.findall(r"`--([a-z-]+) ([a-z0-9-]+)`", text) if match[0] in config}
    defaults = {"none", "as-published", "stop"}
    assert told == {(way, name) for way, table in config.items() for name in table if name not in defaults}
    for option in re.findall(r"`--([a-z-]+) ", text):
        assert option.replace("-", "_") in train.TRAINING_OPTIONS
