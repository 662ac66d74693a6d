"""Every page of the repository: its links lead to files, its commands parse, its make targets exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from helpers.command_line import forefend

ROOT = Path(__file__).parents[2]
GUIDES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts)
PAGES = [*ROOT.glob("*.md"), *GUIDES, *sorted((ROOT / "results").rglob("README.md"))]


def name_of(page: Path) -> str:
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


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
    assert used == {"lint", "types", "test", "docs"}
    for page in [*PAGES, ROOT / ".ci" / "run"]:
        used |= set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.M))
    assert used <= targets
