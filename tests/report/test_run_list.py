from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command_line import held_by_another
from helpers.made_runs import made_run
from helpers.results import attacked, cell, some_cells

from forefend.checks import InputError
from forefend.evaluation.results import save
from forefend.report.best_numbers import best_numbers
from forefend.report.run_list import ListedRun, as_json, in_order, list_runs, table
from forefend.runtime.files import write_versioned


def only(folder: Path) -> ListedRun:
    (run,) = list_runs(folder)
    return run


def test_interrupted_run_says_its_epoch(tmp_path: Path) -> None:
    made_run(tmp_path / "a", epochs=7, done=3, ended=False)
    run = only(tmp_path)
    assert (run.state, run.epoch, run.epochs, run.best) == ("interrupted", 3, 7, None)
    assert "interrupted at epoch 3 of 7" in table([run])


def test_run_that_another_process_holds_is_training(tmp_path: Path) -> None:
    made_run(tmp_path / "a", epochs=7, done=0, ended=False)
    with held_by_another(tmp_path / "a"):
        assert only(tmp_path).state == "training"
        assert "training at epoch 0 of 7" in table(list_runs(tmp_path))
    assert only(tmp_path).state == "interrupted"


def test_finished_evaluated_and_checked_run(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "a", seed=5)
    assert (only(tmp_path).state, only(tmp_path).seed) == ("finished", 5)
    save(folder / "evaluations/x", some_cells())
    assert only(tmp_path).state == "evaluated"
    reports = {"cnn": {"passed": True, "checks": []}, "mlp": {"passed": False, "checks": []}}
    write_versioned(folder / "check/check.json", {"reports": reports})
    assert only(tmp_path).state == "checked"
    assert "checked, 1 of 2 FAILED" in table(list_runs(tmp_path))


def test_size_is_that_of_all_files_and_links_count_as_links(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "a")
    before = only(tmp_path).size
    assert before == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    (folder / "guides").mkdir()
    (folder / "guides/one").write_bytes(b"0" * 12_345)
    large = tmp_path / "large"
    large.write_bytes(b"0" * 10**6)
    (folder / "link").symlink_to(large)
    assert 12_345 <= only(tmp_path).size - before < 13_000


def test_runs_are_newest_first_and_sort_by_a_column(tmp_path: Path) -> None:
    made_run(tmp_path / "b", started="2026-01-01T00:00:00Z", results=some_cells())
    made_run(tmp_path / "a", started="2026-03-01T00:00:00Z")
    better = [cell("cnn", 0.99, defended=True), attacked("cnn", 0.9, "PGD", 8 / 255, defended=True)]
    made_run(tmp_path / "c", started="2026-02-01T00:00:00Z", results=better)
    runs = list_runs(tmp_path)
    assert [run.name for run in runs] == ["a", "c", "b"]
    assert [run.name for run in in_order(runs, "robust", largest_first=True)] == ["c", "b", "a"]
    assert [run.name for run in in_order(runs, "name", largest_first=False)] == ["a", "b", "c"]


def test_links_are_followed_unless_they_lead_back(tmp_path: Path) -> None:
    made_run(tmp_path / "elsewhere/one")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/loop").symlink_to(tmp_path)
    (tmp_path / "runs/self").symlink_to(tmp_path / "runs")
    (tmp_path / "runs/disk").symlink_to(tmp_path / "elsewhere")
    assert [run.name for run in list_runs(tmp_path / "runs")] == ["disk/one"]


def test_runs_inside_folders_are_found_and_those_inside_runs_are_not(tmp_path: Path) -> None:
    made_run(tmp_path / "studies/aaa/one")
    made_run(tmp_path / "demo")
    made_run(tmp_path / "demo/cnn")
    save(tmp_path / "evaluations/bare", some_cells()[:2])
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert sorted(run.name for run in list_runs(tmp_path)) == ["demo", "evaluations/bare", "studies/aaa/one"]
    assert only(tmp_path / "demo").name == "demo"


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        list_runs(tmp_path / "nowhere")


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"accuracy": 0.45', '"accuracy": 0.46'))


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("config.json", lambda path: path.write_text("{"), "config.json is not JSON"),
        ("config.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "config.json is not JSON"),
        ("config.json", lambda path: path.write_text("[]"), "config.json holds something else"),
        (
            "config.json",
            lambda path: path.write_text('{"config": 3}'),
            "config.json holds something else",
        ),
        ("config.json", newer, "has format 9"),
        ("config.json", Path.unlink, "config.json is missing"),
        ("config.json", pipe, "is a folder, pipe or device"),
        ("train.jsonl", lambda path: path.write_text("\n\n"), "train.jsonl holds something else"),
        ("weights.safetensors", Path.unlink, "weights.safetensors is missing"),
        ("defense.json", lambda path: path.write_text(""), "defense.json is not JSON"),
        ("evaluations/digits-quick/summary.json", edited, "was edited or damaged (its digest differs)"),
        ("evaluations/digits-quick/summary.json", lambda path: path.write_text("NaN"), "holds no list of results"),
    ],
)
def test_damaged_run_is_a_row_that_says_so(
    tmp_path: Path, name: str, damage: Callable[[Path], object], says: str
) -> None:
    made_run(tmp_path / "good")
    damage(made_run(tmp_path / "bad", results=some_cells()) / name)
    bad, good = in_order(list_runs(tmp_path), "name", largest_first=False)
    assert (bad.state, good.state) == ("damaged", "finished")
    assert says in bad.problem
    assert bad.problem in table([bad])


def test_controls_in_names_are_not_printed_and_json_keeps_them(tmp_path: Path) -> None:
    made_run(tmp_path / "a\x1b[2J\nb", recipe="x\x1b]0;y")
    run = only(tmp_path)
    assert "\x1b" not in table([run])
    assert "a?[2J?b" in table([run])
    assert json.loads(json.dumps(as_json(run)))["name"] == "a\x1b[2J\nb"


def evaluation(folder: Path, *results: object) -> Path:
    save(folder, results)  # type: ignore[arg-type]
    return folder


def test_best_numbers_are_those_of_the_least_robust_defended_guide(tmp_path: Path) -> None:
    found = best_numbers([evaluation(tmp_path / "a", *some_cells())], "Linf:8/255")
    assert found is not None
    assert found.robust is not None
    assert (found.clean.accuracy, found.robust.accuracy, found.robust.attack) == (0.8, 0.45, "worst")
    assert found.attacks == ["FGSM", "PGD"]


def test_best_numbers_prefer_the_radius_of_the_training_then_the_nearest_larger(tmp_path: Path) -> None:
    radii = [cell("cnn", 0.9), *(attacked("cnn", 1 - radius, "PGD", radius) for radius in (0.1, 0.2, 0.3))]
    folder = evaluation(tmp_path / "a", *radii)
    for threat, radius in {"Linf:0.2": 0.2, "Linf:0.25": 0.3, "Linf:1/100": 0.1, "L2:0.1": 0.3, "": 0.3}.items():
        found = best_numbers([folder], threat)
        assert found is not None
        assert found.robust is not None
        assert found.robust.radius == radius, threat


def test_best_numbers_are_of_the_evaluation_with_the_most_images(tmp_path: Path) -> None:
    few = [cell("cnn", 0.9), attacked("cnn", 0.1, "PGD", 0.1)]
    few = [type(result)(**{**vars(result), "n": 20}) for result in few]
    many = [cell("cnn", 0.9), attacked("cnn", 0.5, "PGD", 0.1)]
    folders = [evaluation(tmp_path / "few", *few), evaluation(tmp_path / "many", *many)]
    found = best_numbers(folders, "Linf:0.1")
    assert found is not None
    assert found.evaluation == tmp_path / "many"
    assert found.robust is not None
    assert found.robust.n == 200


def test_best_numbers_without_attack_are_clean_alone(tmp_path: Path) -> None:
    found = best_numbers([evaluation(tmp_path / "a", cell("cnn", 0.9))], "Linf:0.1")
    assert found is not None
    assert (found.clean.accuracy, found.robust) == (0.9, None)
    assert best_numbers([], "Linf:0.1") is None
