"""Every page of the repository: links lead to files, commands parse, make targets exist, Python blocks run."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from helpers.command_line import done, forefend, guide
from helpers.small_budgets import SMALL_CHECKS, ask_little

import forefend as ff
from forefend.evaluation.suites import SUITES

ROOT = Path(__file__).parents[2]
GUIDES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts)
PAGES = [*ROOT.glob("*.md"), *GUIDES, *sorted((ROOT / "results").rglob("README.md"))]


def name_of(page: Path) -> str:
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


def names(text: str) -> list[str]:
    """The code in a text."""
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not re.match("https?:", link) and not (page.parent / link).exists()] == []


def commands(page: Path) -> list[str]:
    """The command lines of a page without their first word: in code blocks, and in sentences where options follow."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\S*)\n(.*?)^```$", text, re.M | re.S)
    lines = "".join(block for language, block in fenced if not language).replace("\\\n", " ").splitlines()
    found = [line for line in lines if re.match("(torchrun .*-m )?forefend ", line)]
    found += [piece for piece in re.findall(r"`(forefend [a-z]+ [^`]*)`", text) if not re.search(r"[\[\n…]|toy", piece)]
    return [re.sub(r"^.*?forefend |  +#.*", "", line) for line in found]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_of_a_page_parse(page: Path) -> None:
    failed = {line: forefend(f"{line} --print_config").err for line in commands(page)}
    assert {line: error for line, error in failed.items() if error} == {}


def test_make_targets_of_pages_and_workflows_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    steps = [step.get("run", "") for step in yaml.safe_load(workflow.read_text())["jobs"]["check"]["steps"]]
    used = {step.removeprefix("make ") for step in steps if step}
    assert used == {"lint", "types", "test", "test-browser", "docs"}
    for page in [*PAGES, ROOT / ".ci" / "run"]:
        used |= set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.M))
    assert used <= targets


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    fenced = re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for language, block in fenced if language == "python"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the Python blocks of a page as one module, with small budgets for checks and queries."""
    monkeypatch.setattr(ff, "check", partial(ff.check, budget=SMALL_CHECKS), raising=False)
    ask_little(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def run(page: Path, **names: object) -> None:
        module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)
        vars(module).update(names)
        for number, block in enumerate(blocks(page)):
            exec(compile(block, f"{page.name}, block {number}", "exec"), vars(module))

    return run


OTHERS = [  # what foolbox, torch in Lightning, and Lightning itself warn of
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("Please import `gaussian_filter", "`isinstance.treespec, LeafSpec", "The 'train_dataloader", "Found ")
]
# test_protect_page.py runs the shortest case of the first page, tests/interop what the second one does.
MARKS = {"protect-my-classifier.md": [pytest.mark.slow], "other-libraries.md": [pytest.mark.slow, *OTHERS]}
RUNNABLE = [pytest.param(page, marks=MARKS.get(page.name, []), id=name_of(page)) for page in GUIDES if blocks(page)]


@pytest.mark.parametrize("page", RUNNABLE)
def test_python_blocks_of_a_page_run(page: Path, run: Callable[..., None]) -> None:
    run(page)


def test_readme_block_runs(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done(f"train rtfe --data digits --guides {guide()} --images 60 --epochs 1 --steps 1 --out runs/demo")
    load, classifier = ff.data.load, ff.classifiers.build("cnn", channels=1, classes=10, size=8)
    ff.fit(ff.recipes.Natural(epochs=4), load("digits", "train"), ff.Networks(classifier=classifier))
    monkeypatch.setattr(ff.data, "load", lambda *words: ff.data.sample(load(*words), 40, 0))
    run(ROOT / "README.md", classifier=classifier.eval())
    assert "n=40" in capsys.readouterr().out


def test_reference_lists_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    listed = {*re.findall(r"forefend\.(\w+)$", page, re.M), *re.findall(r"`ff\.(\w+)`", page)}
    assert listed == {*ff.__all__} - {"__version__"}


def test_readme_tables_name_what_exists() -> None:
    sections = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")
    named = {s.splitlines()[0]: names(" ".join(re.findall(r"^\| (`[^|]*) \|", s, re.M))) for s in sections}
    assert sorted(named["Recipes"]) == sorted(ff.recipes.RECIPES)
    assert set(named["Suites"]) == set(SUITES) - {"rtfe-strong-weak"}
    assert [name for name in named["Attacks"] if not hasattr(ff.attacks, name)] == []
