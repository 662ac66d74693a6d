from __future__ import annotations

import json
from dataclasses import replace
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
    verdicts = list(dict(verdicts).items())  # one for each image
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
        files.append(path, TWO)
        assert records.read(path) == [ONE, TWO]
    path.write_bytes(whole[:-1])
    assert records.read(path) == []
    files.append(path, TWO)
    assert records.read(path) == [TWO]


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[1, 2]", b"null", b'{"subject": "a"}', b"\x00\x00", b"\xff", b'{"more": 1}', b"[" * 9999],
    ids=lambda line: repr(line)[:20],
)
def test_read_leaves_out_a_damaged_line(tmp_path: Path, line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    files.append(path, ONE)
    path.write_bytes(path.read_bytes() + line + b"\n")
    files.append(path, TWO)
    assert records.read(path) == [ONE, TWO]
    assert capsys.readouterr().out.startswith(f"Line 2 of {path} is not used (")
    assert path.read_bytes().count(b"\n") == 3  # nothing was deleted


@pytest.mark.parametrize("value", ["NaN", "null", '"yes"', "0.5", "1", "[]"])
def test_read_leaves_out_verdicts_that_are_none(tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f'{{"model":"m","trial":"none","seed":0,"index":[4],"misclassified":[{value}]}}\n')
    assert records.read(path) == []
    assert f"Line 1 of {path} is not used (its misclassified holds" in capsys.readouterr().out


def test_read_leaves_out_an_edited_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    files.append(path, ONE, TWO)
    first, second = path.read_text().splitlines(keepends=True)
    without = json.dumps({key: value for key, value in json.loads(second).items() if key != "digest"}) + "\n"
    for edited in (second.replace("true", "false"), second.replace('"seed":1', '"seed":2'), without):
        assert edited != second
        path.write_text(first + edited)
        assert records.read(path) == [ONE]
        assert f"Line 2 of {path} is not used (it was edited" in capsys.readouterr().out
    path.write_text(without + first)  # a file that an older version began
    assert records.read(path) == [TWO, ONE]


def test_read_refuses_two_verdicts_on_one_image(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    digests = [*"ab"]
    files.append(path, replace(ONE, images=digests), TWO, replace(ONE, index=[7, 8], images=[*"bc"]))
    with pytest.raises(InputError, match=rf"^Lines 1 and 3 of {path} have different verdicts on image 7"):
        records.read(path)
    path.unlink()
    files.append(path, replace(ONE, images=digests), replace(ONE, index=[7, 8], images=[*"cd"]))
    assert len(records.read(path)) == 2  # another image of this index


def test_append_cuts_the_half_line_of_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    files.append(path, ONE)
    path.write_bytes(path.read_bytes() + b'{"model": "digi')
    files.append_lines(path, files.json_line(TWO))
    assert records.read(path) == [ONE, TWO]
    path.write_bytes(b'{"model": "digi')
    files.append(path, TWO)
    assert records.read(path) == [TWO]
