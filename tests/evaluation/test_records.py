from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.records import Record
from forefend.runtime import files

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
