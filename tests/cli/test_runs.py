from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers.command_line import done, refused
from helpers.made_runs import made_run
from helpers.results import some_cells


def test_runs_prints_a_row_for_each_run(tmp_path: Path) -> None:
    made_run(tmp_path / "first", results=some_cells())
    made_run(tmp_path / "second", started="2026-05-01T00:00:00Z", done=1, ended=False)
    heading, rule, second, first, caption = done(f"runs {tmp_path}").splitlines()
    assert heading.split()[:5] == ["run", "recipe", "data", "threat", "state"]
    assert heading.split()[5:] == ["clean", "robust", "under", "n", "seed", "size", "started"]
    assert set(rule) == {"-"}
    assert second.split()[:9] == ["second", "rtfe", "digits", "Linf:8/255", "interrupted", "at", "epoch", "1", "of"]
    assert "evaluated" in first
    assert "80.0 [73.9–85.0]  45.0 [38.3–51.9]  cnn, Linf 8/255, worst of FGSM and 1 more  200  0" in first
    assert "Wilson" in caption
    assert done(f"runs {tmp_path} --sort name").splitlines()[2].startswith("first")


def test_runs_json_has_every_field(tmp_path: Path) -> None:
    made_run(tmp_path / "first", results=some_cells())
    held = json.loads(done(f"runs {tmp_path} --json"))
    (run,) = held["runs"]
    assert held["format"] == 1
    assert run["folder"] == str(tmp_path / "first")
    assert run["best"]["robust"]["accuracy"] == 0.45
    assert run["best"]["attacks"] == ["FGSM", "PGD"]


def test_runs_of_an_empty_folder_says_how_to_make_one(tmp_path: Path) -> None:
    assert "`forefend train` makes one" in done(f"runs {tmp_path}")
    assert json.loads(done(f"runs {tmp_path} --json"))["runs"] == []


def test_unknown_column_and_folder_are_refused(tmp_path: Path) -> None:
    assert "choose one of clean, data, name, newest" in refused(f"runs {tmp_path} --sort quality")
    assert "name the folder of your runs" in refused(f"runs {tmp_path / 'nowhere'}")


def test_two_hundred_runs_are_listed_without_torch(tmp_path: Path) -> None:
    for number in range(200):
        made_run(tmp_path / f"run-{number}", results=some_cells())
    program = f"""
import sys, time
from forefend.cli.main import main
started = time.process_time()
main(["runs", {str(tmp_path)!r}])
assert time.process_time() - started < 2
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 203
