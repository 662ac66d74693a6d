from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forefend.checks import InputError
from forefend.runtime.files import FORMAT, check_format, read_versioned, write_json, write_versioned
from forefend.runtime.run_folder import start


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


def test_config_of_run_carries_the_format(tmp_path: Path) -> None:
    run = start(tmp_path, {"epochs": 1, "device": "cpu"})
    assert json.loads((tmp_path / "config.json").read_text())["format"] == FORMAT
    start(tmp_path, {"epochs": 1, "device": "cuda"}, may_change=["device"])
    assert json.loads((tmp_path / "config.json").read_text())["format"] == FORMAT
    assert run.config == {"epochs": 1, "device": "cuda"}
    write_json(tmp_path / "config.json", {"format": FORMAT + 1, "config": {}})
    with pytest.raises(InputError, match="format"):
        start(tmp_path, {"epochs": 1, "device": "cuda"})
