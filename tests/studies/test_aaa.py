from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import done, refused

from forefend.runtime.files import read_versioned
from forefend.studies import catalog
from forefend.studies.measurements import Accuracy
from forefend.studies.networks import Trained
from forefend.studies.output import load
from forefend.studies.tasks import Place, perform

SHORT = "reproduce aaa table-5 --scale smoke --only 'natural training / transfer' 'l_mse / native, natural'"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("finished ")]


def test_table_5_at_smoke_scale_measures_every_cell(here: Path) -> None:  # nine seconds: 47 trainings and measurements
    out = done("reproduce aaa table-5 --scale smoke")
    assert len(finished(out)) == 47
    folder = here / "runs/studies/aaa/table-5-smoke"
    found = load(folder)
    assert len(found.outcomes) == 40
    assert all(cell.n() == 40 and not cell.failed for cell in found.outcomes)
    files = {"records.jsonl", "robustbench.json", "table.csv", "table.json", "table.md"}
    assert {path.name for path in folder.iterdir()} == files
    models = read_versioned(folder / "robustbench.json")["models"]
    assert len(models) == 10  # five rows of two networks
    first, cells = models[0], {(cell.row, cell.column): cell for cell in found.outcomes}
    assert (first["name"], first["dataset"], first["architecture"]) == ("Natural training", "digits", "cnn")
    assert first["clean_acc"] == f"{cells['Natural training', 'native, Natural'].ours():.2f}"
    assert f"{cells['Natural training', 'native, PGD'].ours():.2f}" in [
        attack["accuracy"] for attack in first["attacks"].values()
    ]
    assert (folder / "table.md").read_text() in out
    again = done("reproduce aaa table-5 --scale smoke")
    assert finished(again) == []
    assert "47 of 47 tasks are finished" in again
    natural = next(cell for cell in found.outcomes if cell.row == "Natural training")
    assert natural.ours() > 60


def test_a_study_killed_half_way_repeats_no_finished_cell(here: Path) -> None:
    whole = done(f"{SHORT} --runs whole")
    table = "aaa/table-5-smoke/table.md"
    words = ["--only", "natural training / transfer", "l_mse / native, natural", "--runs", "parts"]
    process = subprocess.Popen(
        [sys.executable, "-m", "forefend", "reproduce", "aaa", "table-5", "--scale", "smoke", *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    before = []
    for line in process.stdout:
        before += finished(line)
        if len(before) == 3:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    after = finished(done(f"{SHORT} --runs parts"))
    assert len(finished(whole)) - 4 <= len(after) < len(finished(whole)) - 2
    assert (here / "parts" / table).read_text() == (here / "whole" / table).read_text()


def test_cells_are_listed_with_their_cost(here: Path) -> None:
    out = done("reproduce aaa table-5 --scale smoke --list --only 'l_xent / transfer'")
    assert "AAA L_xent / transfer, PGD" in out
    assert "22.54  to do" in out
    assert "AAA L_mse" not in out
    # 400 images: two classifiers for 3 epochs, the defense for 5 with 1 + 1 gradients; 40 images for 5, 5 and 10 steps
    assert re.search(r"transfer, Natural +33.6 +to do +6,400$", out, re.M)
    assert [int(n) for n in re.findall(r" to do +(\d+)$", out, re.M)] == [200, 200, 400]
    assert not (here / "runs").exists()


def test_a_failed_cell_is_shown_and_stops_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Trained.compute

    def compute(self: Trained, *words: object) -> None:
        if self.recipe == "aaa":
            raise RuntimeError("out of luck")
        train(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Trained, "compute", compute)
    out = done(SHORT)
    assert "**77.5**" in out or "(89.74, " in out
    assert "failed (89.26)" in out
    assert "- AAA L_mse / native, Natural: aaa-digits-aaa-autoencoder failed: RuntimeError: out of luck" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("reproduce", "No table was named"),
        ("reproduce aaa table-9", "table-9"),
        ("reproduce abc table-5", "abc"),
        ("reproduce aaa table-5 --scale huge", "huge"),
        ("reproduce aaa table-5 --scale smoke --only nothing", "No cell holds 'nothing'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(here: Path, line: str, words: str) -> None:
    assert words in refused(line)
    assert not (here / "runs").exists()


def test_all_tables_are_listed_with_their_state(here: Path) -> None:
    out = done("reproduce --list")
    for paper, tables in catalog.STUDIES.items():
        for table in tables:
            assert any(line.split()[:2] == [paper, table.name] for line in out.splitlines())
    assert "smoke: runnable here" in out


def test_a_study_moved_or_named_otherwise_resumes(here: Path) -> None:
    guide = Trained("natural", "digits", 50, "mlp", {"epochs": 1})
    settings = {"threat": "Linf:0.1", "epochs": 1, "steps": 1, "batch_size": 16}
    defense = Trained("aaa", "digits", 50, "aaa-autoencoder", settings, guides=(guide,))
    for task in (guide, defense):
        perform(task, Place(here / "runs", device="cpu"))
    (here / "runs").rename(here / "moved")
    (here / "link").symlink_to("moved")
    for runs in (Path("moved"), here / "moved", Path("link")):
        (defense.folder(Place(runs)) / "task.json").unlink()  # as if it had been interrupted at its end
        perform(defense, Place(runs, device="cpu"))
    assert len((defense.folder(Place(Path("link"))) / "train.jsonl").read_text().splitlines()) == 1


def test_added_attacks_have_columns_beside_the_papers_at_cpu_scale_alone() -> None:
    for paper, name, column in [
        ("aaa", "table-5", "transfer, fast"),
        ("jatp", "table-1", "fast"),
        ("rtfe", "table-2", "fast, ε = 8"),
        ("transfer", "table-1", "WB-fast"),
        ("robustifier", "extremes", "l∞"),
    ]:
        cells = {scale: catalog.find(paper, name).cells_at(scale) for scale in ("smoke", "cpu", "paper")}
        added = {
            scale: [
                cell
                for cell in own
                for task in cell.tasks()
                if isinstance(task, Accuracy) and task.attack and task.attack.name == "fast"
            ]
            for scale, own in cells.items()
        }
        assert {cell.paper for cell in added["cpu"]} == {None}
        assert column in {cell.column for cell in added["cpu"]}
        assert all("fast" in cell.name and "`fast`" in cell.differs for cell in added["cpu"])
        assert added["smoke"] == added["paper"] == []
