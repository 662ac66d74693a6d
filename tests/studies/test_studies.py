from __future__ import annotations

import re
from pathlib import Path

import pytest

from forefend.runtime.files import write_versioned
from forefend.studies import catalog, output
from forefend.studies.reproduction import reproduce
from forefend.studies.setting import SCALES
from forefend.studies.table import Table
from forefend.studies.tasks import Place, with_needs

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(path.parent for path in (ROOT / "results" / "studies").glob("*/*/table.json"))
PAGES = {page.stem: page for page in [*sorted((ROOT / "docs" / "papers").glob("*.md")), ROOT / "docs" / "freezing.md"]}
ALL = [(paper, table) for paper, tables in catalog.STUDIES.items() for table in tables]
# Of each paper something that takes a second or two; the others train more than this.
SHORT = {("rtfe", "figure-4"), ("robustifier", "table-s1")}
EACH = [
    pytest.param(
        paper, table, marks=() if (paper, table.name) in SHORT else pytest.mark.slow, id=f"{paper}-{table.name}"
    )
    for paper, table in ALL
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One place for all tables, as tables of a paper share trainings."""
    return Place(tmp_path_factory.mktemp("studies"), device="cpu")


@pytest.mark.parametrize(("paper", "table"), EACH)
def test_table_runs_at_smoke_scale_without_a_failed_cell(paper: str, table: Table, place: Place) -> None:
    folder = place.runs / paper / table.name
    reproduce(paper, table, "smoke", place, folder)
    if table.cells:
        found = output.load(folder)
        assert [cell.failed for cell in found.outcomes if cell.failed] == []
        assert all(cell.quoted or cell.ours() is not None for cell in found.outcomes)
    if table.draw or table.picture:
        assert {path.name for path in folder.iterdir()} >= {"figure.svg", "figure.png"}


def test_one_row_of_the_transfer_table_runs(place: Place) -> None:
    table, folder = catalog.find("transfer", "table-1"), place.runs / "row"
    reproduce("transfer", table, "smoke", place, folder, only=["pgd→pgd 18"])
    row = [cell for cell in output.load(folder).outcomes if cell.row == "pgd→pgd 18"]
    assert [cell.column for cell in row if cell.ours() is not None] == [
        "Natural",
        "BB-FGSM",
        "BB-PGD",
        "WB-FGSM",
        "WB-PGD",
    ]


@pytest.mark.parametrize("scale", SCALES)
def test_cells_have_names_of_their_own_and_tasks(scale: str) -> None:
    for paper, table in ALL:
        if scale in table.scales():
            cells = table.cells_at(scale)
            assert with_needs(catalog.tasks_of(table, scale)), (paper, table.name)
            assert len({cell.name for cell in cells}) == len(cells), (paper, table.name)


def test_names_of_tables_are_unique_and_smoke_and_paper_scales_exist() -> None:
    assert len({(paper, table.name) for paper, table in ALL}) == len(ALL)
    assert all({"smoke", "cpu" if paper == "freezing" else "paper"} <= {*table.scales()} for paper, table in ALL)


def test_a_guide_is_trained_once_for_all_rows_and_columns() -> None:
    cells = catalog.find("rtfe", "table-1").cells_at("paper")
    tasks = with_needs([task for cell in cells for task in cell.tasks()])
    trained = [task.title() for task in tasks.values() if task.title().startswith("natural-")]
    assert sorted(trained) == ["natural-cifar-10-resnet18", "natural-cifar-100-resnet18"]
    assert sum(task.title().startswith("rtfe-cifar-10-") for task in tasks.values()) == 5  # seeds


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_committed_table_is_that_of_its_records(folder: Path) -> None:
    found = output.load(folder)
    assert (folder / "table.md").read_text(encoding="utf-8") == output.markdown(found) + "\n"
    assert (folder / "table.csv").read_text(encoding="utf-8") == output.to_csv(found)
    page = PAGES[found.paper].read_text(encoding="utf-8")
    assert f"../results/studies/{found.paper}/{folder.name} -->" in page


def test_a_table_without_some_cells_is_committed_in_part(tmp_path: Path) -> None:
    table, place = catalog.find("aaa", "table-5"), Place(tmp_path)
    folder = tmp_path / "aaa" / "table-5-smoke"
    folder.mkdir(parents=True)
    assert catalog.states("aaa", table, place, tmp_path)["smoke"] == "runnable here"
    cells = [{"counts": [[1]], "quoted": False}, {"counts": [], "quoted": True}]
    write_versioned(folder / "table.json", {"outcomes": cells})
    assert catalog.states("aaa", table, place, tmp_path)["smoke"] == "committed"
    write_versioned(folder / "table.json", {"outcomes": [*cells, {"counts": [], "quoted": False}]})
    assert catalog.states("aaa", table, place, tmp_path)["smoke"] == "committed in part"
    images = catalog.find("aaa", "table-3")
    assert catalog.states("aaa", images, place, tmp_path)["smoke"] == "runnable here"
    (tmp_path / "aaa" / "table-3-smoke").mkdir()
    (tmp_path / "aaa" / "table-3-smoke" / "figure.png").touch()
    assert catalog.states("aaa", images, place, tmp_path)["smoke"] == "committed"


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_tables_of_a_page_are_those_of_their_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert output.renewed(text, page.parent) == text
    assert len(re.findall("<!-- study ", text)) == len(re.findall("<!-- end -->", text))
