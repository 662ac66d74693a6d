from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from forefend.checks import InputError
from forefend.runtime import files
from forefend.runtime.files import FORMAT, check_format, read_versioned, write_json, write_versioned


def test_write_versioned_puts_the_format_first(tmp_path: Path) -> None:
    write_versioned(tmp_path / "a.json", {"b": [1]})
    assert list(json.loads((tmp_path / "a.json").read_text()).items()) == [("format", FORMAT), ("b", [1])]
    assert read_versioned(tmp_path / "a.json") == {"b": [1]}


@pytest.mark.parametrize("content", [{"b": 1}, [1, 2], []])
def test_read_versioned_without_format_returns_content(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "a.json", content)
    assert read_versioned(tmp_path / "a.json") == content


@pytest.mark.parametrize("found", [FORMAT + 1, str(FORMAT + 1), "x", None, -1])
def test_newer_format_raises(tmp_path: Path, found: Any) -> None:
    write_json(tmp_path / "a.json", {"format": found})
    with pytest.raises(InputError, match=f"a.json has format {found}.*up to {FORMAT}"):
        read_versioned(tmp_path / "a.json")


def test_check_format_accepts_number_and_text() -> None:
    check_format(FORMAT, Path("a"))
    check_format(str(FORMAT), Path("a"))


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


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_read_json_of_deep_nesting_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match="is not JSON"):
        files.read_json(tmp_path / "a.json")


def test_read_json_of_pipe_folder_or_device_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    for path in (tmp_path / "a.json", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="folder, pipe or device"):
            files.read_json(path)


def test_check_regular_refuses_large_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1001))
    files.check_regular(tmp_path / "a", 1001)
    with pytest.raises(InputError, match="has 1,001 bytes, expected at most 1,000"):
        files.check_regular(tmp_path / "a", 1000)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("resnet20@trades", "resnet20-trades"),
        ("../../etc", "-..-etc"),
        ("..", "-"),
        ("", "-"),
        (".hidden", "hidden"),
        ("a\0b/c\\d e:f\n", "a-b-c-d-e-f-"),
        ("Ångström_1.0", "Ångström_1.0"),
        ("\ud800<script>", "-script-"),
    ],
)
def test_folder_name_stays_below_its_parent(text: str, name: str) -> None:
    assert files.folder_name(text) == name
    assert (Path("/runs") / name).resolve().parent == Path("/runs")


def test_is_writable_refuses_control_and_surrogate_characters() -> None:
    assert all(map(files.is_writable, ("", "the bank's", "Ångström \u3000 数字 ✓")))
    assert not any(map(files.is_writable, ("a\0", "\x1b[31m", "a\nb", "\ud800", "\x7f")))
