from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.records import Record
from forefend.runtime import files
from forefend.runtime.run_folder import Run, start

ONE = Record("digits/test:0123456789abcdef", "none", 0, [4, 7], [False, True])
TWO = Record("digits/test:0123456789abcdef", "PGD-10(Linf:8/255, …) × 2", 1, [4], [True])


def test_read_returns_records_in_order(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert records.read(path) == []
    files.append(path, ONE)
    files.append(path, TWO)
    assert records.read(path) == [ONE, TWO]
    assert path.read_bytes().count(b"\n") == 2


@given(model=st.text(), trial=st.text(), seed=st.integers(), verdicts=st.lists(st.tuples(st.integers(), st.booleans())))
def test_any_record_is_one_line_and_reads_back(
    model: str, trial: str, seed: int, verdicts: list[tuple[int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "records.jsonl"
    record = Record(model, trial, seed, [i for i, _ in verdicts], [lost for _, lost in verdicts])
    files.append(path, record)
    files.append(path, ONE)
    assert records.read(path) == [record, ONE]


def test_read_drops_a_line_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    files.append(path, ONE)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        assert records.read(path) == [ONE]
        assert path.read_bytes() == whole
    path.write_bytes(whole[:-1])
    assert records.read(path) == []
    files.append(path, TWO)
    assert records.read(path) == [TWO]


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[1, 2]", b"null", b'{"subject": "a"}', b"\x00\x00", b"\xff", json.dumps({"more": 1}).encode()],
)
def test_read_damaged_line_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "records.jsonl"
    files.append(path, ONE)
    path.write_bytes(path.read_bytes() + line + b"\n")
    files.append(path, TWO)
    with pytest.raises(InputError) as refusal:
        records.read(path)
    assert str(refusal.value).startswith(f"Line 2 of {path} is not a record:")
    assert path.read_bytes().count(b"\n") == 3  # nothing was deleted


def test_write_makes_the_folder_and_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "weights"
    files.write(path, b"old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["weights"]
    assert path.stat().st_mode & 0o777 == 0o644


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize(("failure", "error"), [(_full, OSError), (_stop, KeyboardInterrupt)])
def test_write_interrupted_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: Any, error: type[BaseException]
) -> None:
    path = tmp_path / "config.json"
    files.write(path, b"old")
    monkeypatch.setattr(os, call, failure)
    with pytest.raises(error):
        files.write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["config.json"]


def test_write_on_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    files.write(path, b"old")
    real = os.fdopen

    class Full:
        def __init__(self, handle: int, mode: str) -> None:
            self.file = real(handle, mode)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:2])
            self.file.flush()
            _full()

    monkeypatch.setattr(os, "fdopen", Full)
    with pytest.raises(OSError, match="No space left") as full:
        files.write(path, b"new content")
    assert full.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights"]


def test_write_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *a, call=call, real=real: (order.append(call), real(*a))[1])
    files.write(tmp_path / "file", b"content")
    assert order == ["fsync", "replace"]


def test_json_reads_back(tmp_path: Path) -> None:
    value = {"recipe": "rtfe", "name": "Ångström", "radii": [0.03, 1], "none": None}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "Ångström" in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"{'a': 1}"])
def test_read_json_refuses_other_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not JSON") as refusal:
        files.read_json(path)
    assert str(path) in str(refusal.value)


def test_read_json_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "config.json", tmp_path / "file" / "config.json"):
        with pytest.raises(InputError) as refusal:
            files.read_json(path)
        assert str(path) in str(refusal.value)


CONFIG = {"recipe": "rtfe", "guides": ("cnn", "resnet20"), "radius": 8 / 255, "epochs": 3}


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
    assert about["command"].startswith("forefend")
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
