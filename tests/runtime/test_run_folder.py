from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from forefend.checks import InputError
from forefend.runtime import files
from forefend.runtime.files import FORMAT, write_json
from forefend.runtime.run_folder import Run, start

CONFIG = {"recipe": "rtfe", "guides": ("cnn", "resnet20"), "radius": 8 / 255, "epochs": 3}


@pytest.mark.parametrize("script", ["/venv/bin/forefend", "C/forefend.exe", "/site/forefend/__main__.py"])
def test_command_is_recorded_as_a_shell_takes_it(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, "evaluate", 'runs/it\'s a "run"'])
    assert shlex.split(files.provenance()["command"]) == ["forefend", "evaluate", 'runs/it\'s a "run"']


@pytest.mark.parametrize("exists", [True, False])
def test_start_new_run_writes_config_and_versions(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "runs" / "one"
    if exists:
        folder.mkdir(parents=True)
    run = start(folder, CONFIG)
    assert run == Run(folder)
    assert run.config == CONFIG | {"guides": ["cnn", "resnet20"]}
    about = files.read_json(folder / "config.json")["about"]
    assert about["versions"].keys() == {"forefend", "torch", "numpy", "accelerate"}
    assert shlex.split(about["command"]) == ["python", *sys.argv]
    assert run.checkpoint.parent == folder


def test_start_with_equal_config_resumes(tmp_path: Path) -> None:
    start(tmp_path, CONFIG).log(epoch=1, loss=0.5)
    content = (tmp_path / "config.json").read_bytes()
    again = start(tmp_path, CONFIG)
    again.log(epoch=2, loss=0.25)
    assert (tmp_path / "config.json").read_bytes() == content
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]


def test_rewind_drops_later_log_lines(tmp_path: Path) -> None:
    run, log = start(tmp_path, CONFIG), tmp_path / "train.jsonl"
    run.rewind(0)
    assert not log.exists()
    for step in (5, 10, 15):
        run.log(step=step)
    run.rewind(15)
    assert len(log.read_text().splitlines()) == 3
    with log.open("a") as file:
        file.write('{"step": 2')  # cut short by a kill
    run.rewind(10)
    run.log(step=15, loss=1.0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [{"step": 5}, {"step": 10}, {"step": 15, "loss": 1.0}]


def test_rewind_drops_unreadable_lines_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, log = start(tmp_path, CONFIG), tmp_path / "train.jsonl"
    junk = [b"", b"null", b"{", b"\xff\x00", b'{"epoch": 1}', b'{"step": "a"}', b'{"step": NaN}', b"[" * 9999]
    log.write_bytes(b"\n".join([*junk, b'{"step": 5}', b""]))
    run.rewind(10)
    assert log.read_bytes() == b'{"step": 5}\n'
    assert f"{log}: 8 unreadable lines are removed" in capsys.readouterr().out
    log.unlink()
    log.mkdir()
    with pytest.raises(InputError, match=r"train\.jsonl is a folder"):
        run.rewind(10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 4}, "epochs was 3, now 4"),
        ({"guides": ["cnn"]}, "guides was ['cnn', 'resnet20'], now ['cnn']"),
        ({"new": 1}, "new was None, now 1"),
        ({"radius": 0.0313}, "radius was 0.03137254901960784, now 0.0313"),
    ],
)
def test_start_with_another_config_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    start(tmp_path, CONFIG)
    content = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="belongs to another configuration") as refusal:
        start(tmp_path, CONFIG | change)
    assert f"({words})" in str(refusal.value)
    assert (tmp_path / "config.json").read_bytes() == content


def test_an_option_that_is_new_and_off_equals_its_absence(tmp_path: Path) -> None:
    start(tmp_path, {"options": {"ema": 0.99}})
    start(tmp_path, {"options": {"ema": 0.99, "keep_best": None}, "also": None})
    with pytest.raises(InputError, match=r"keep_best was None, now 0\.05"):
        start(tmp_path, {"options": {"ema": 0.99, "keep_best": 0.05}})


def test_start_in_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    for folder in (tmp_path, tmp_path / "holiday.txt"):
        with pytest.raises(InputError, match="no run: choose an empty or new folder"):
            start(folder, CONFIG)
    assert os.listdir(tmp_path) == ["holiday.txt"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"config": 3}', '{"config": "abc"}', '{"config": [1]}'])
def test_config_of_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="no configuration of a run"):
        start(tmp_path, CONFIG)


def test_config_of_run_carries_the_format(tmp_path: Path) -> None:
    run = start(tmp_path, {"epochs": 1, "device": "cpu"})
    assert json.loads((tmp_path / "config.json").read_text())["format"] == FORMAT
    start(tmp_path, {"epochs": 1, "device": "cuda"}, may_change=["device"])
    assert json.loads((tmp_path / "config.json").read_text())["format"] == FORMAT
    assert run.config == {"epochs": 1, "device": "cuda"}
    write_json(tmp_path / "config.json", {"format": FORMAT + 1, "config": {}})
    with pytest.raises(InputError, match="format"):
        start(tmp_path, {"epochs": 1, "device": "cuda"})
