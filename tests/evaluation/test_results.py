from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.results import some_cells

from forefend.checks import InputError
from forefend.evaluation import results
from forefend.evaluation.records import Record
from forefend.evaluation.results import CLEAN, WORST, Result, Row, norm_and_radius
from forefend.evaluation.statistics import wilson
from forefend.runtime import files
from forefend.runtime.files import write_versioned

ROW = Row("cnn", seen=True, defended=False, n=10, seed=3)
Verdict = tuple[str, str, float, frozenset[int]]  # of one trial: attack, norm, radius and misclassified images
CLEANLY_LOST = frozenset({0})
SMALL_FGSM = ("fgsm", "Linf", 0.1, frozenset({0, 1}))
SMALL_PGD = ("pgd", "Linf", 0.1, frozenset({0, 2, 3}))
LARGE_FGSM = ("fgsm", "Linf", 0.2, frozenset({0, 4}))
LARGE_PGD = ("pgd", "Linf", 0.2, frozenset({0, 2, 4, 5}))
EUCLID = ("pgd", "L2", 0.5, frozenset({0, 9}))


def counted(clean: frozenset[int], verdicts: Sequence[Verdict]) -> list[Result]:
    trials = [(CLEAN, "", 0.0), *(verdict[:3] for verdict in verdicts)]
    return ROW.count(trials, [{i: i in broken for i in range(10)} for broken in (clean, *(v[3] for v in verdicts))])


def found(*verdicts: Verdict) -> dict[tuple[str, str, float], Result]:
    made = counted(CLEANLY_LOST, verdicts)
    by_key = {(cell.attack, cell.norm, cell.radius): cell for cell in made}
    assert len(by_key) == len(made)
    return by_key


def test_count_of_a_verdict_is_a_result() -> None:
    cell = found(SMALL_PGD)["pgd", "Linf", 0.1]
    low, high = wilson(7, 10)
    assert cell == Result("cnn", True, False, "pgd", "Linf", 0.1, 10, 0.7, low, high, 0.7, 3)


def test_count_begins_with_clean_images() -> None:
    first = counted(CLEANLY_LOST, [SMALL_PGD])[0]
    assert (first.attack, first.norm, first.radius, first.accuracy, first.cumulative) == (CLEAN, "", 0.0, 0.9, 0.9)
    assert [cell.attack for cell in counted(frozenset(), [])] == [CLEAN]


def test_count_worst_is_image_by_image() -> None:
    made = found(SMALL_FGSM, SMALL_PGD, LARGE_FGSM, LARGE_PGD)
    assert made[WORST, "Linf", 0.1].accuracy == 0.6  # 0, 1, 2, 3 are lost to one or the other
    assert made[WORST, "Linf", 0.2].accuracy == 0.6  # 0, 2, 4, 5
    assert made[WORST, "Linf", 0.1].accuracy < min(made["fgsm", "Linf", 0.1].accuracy, 0.7)


def test_count_of_one_attack_has_no_worst() -> None:
    assert {key for key in found(SMALL_PGD, LARGE_PGD, EUCLID) if key[0] == WORST} == set()
    made = found(SMALL_PGD, SMALL_FGSM, EUCLID)
    assert {key for key in made if key[0] == WORST} == {(WORST, "Linf", 0.1)}


@pytest.mark.parametrize("turn", [1, -1])
def test_cumulative_never_rises_with_the_radius(turn: int) -> None:
    made = found(*(SMALL_FGSM, LARGE_FGSM, SMALL_PGD, LARGE_PGD)[::turn])
    assert made["fgsm", "Linf", 0.1].cumulative == 0.8
    assert made["fgsm", "Linf", 0.2].accuracy == 0.8
    assert made["fgsm", "Linf", 0.2].cumulative == pytest.approx(0.7)  # 0, 1, 4
    assert made[WORST, "Linf", 0.2].cumulative == pytest.approx(0.4)  # 0 … 5


def test_cumulative_is_separate_for_norms() -> None:
    made = found(SMALL_PGD, ("pgd", "L2", 0.05, frozenset({0, 8})))
    assert made["pgd", "Linf", 0.1].cumulative == 0.7
    assert made["pgd", "L2", 0.05].cumulative == 0.8


def test_cumulative_contains_clean_errors() -> None:
    made = found(("pgd", "Linf", 0.1, frozenset({5})))
    assert made["pgd", "Linf", 0.1].cumulative == 0.8


def test_load_returns_saved_results(tmp_path: Path) -> None:
    made = counted(CLEANLY_LOST, [SMALL_FGSM, SMALL_PGD, EUCLID])
    results.save(tmp_path, iter(made))
    assert results.load(tmp_path) == made


def _without(key: str) -> str:
    row = dataclasses.asdict(counted(CLEANLY_LOST, [])[0])
    del row[key]
    return json.dumps({"format": 1, "results": [row]})


@pytest.mark.parametrize("content", ["{}", "[1]", "[[]]", '[{"classifier": "cnn"}]', _without("cumulative"), "null"])
def test_load_refuses_another_summary(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match="no list of results") as refusal:
        results.load(tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_load_missing_or_broken_summary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no"):
        results.load(tmp_path)
    (tmp_path / "summary.json").write_text("[")
    with pytest.raises(InputError, match="is not JSON"):
        results.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"accuracy": 7.0, "high": 8.0}, "accuracy is 7.0, expected a number in"),
        ({"accuracy": math.nan}, "accuracy is nan"),
        ({"cumulative": "0.5"}, "cumulative is '0.5'"),
        ({"low": 0.95}, "accuracy is 0.7, expected a number from low 0.95"),
        ({"n": 0}, "n is 0, expected an integer of at least 1"),
        ({"n": True}, "n is True"),
        ({"radius": -1}, "radius is -1"),
        ({"classifier": "<script>alert(1)</script>"}, "classifier is '<script>"),
        ({"attack": "a | b"}, r"attack is 'a \| b'"),
        ({"norm": "Linf\x1b[2J"}, "norm is 'Linf"),
        ({"classifier": None}, "classifier is None"),
    ],
)
def test_load_of_impossible_values_is_refused(tmp_path: Path, edit: dict[str, object], words: str) -> None:
    made = [dataclasses.asdict(cell) for cell in counted(CLEANLY_LOST, [SMALL_PGD])]
    write_versioned(tmp_path / "summary.json", {"results": [*made[:1], made[1] | edit]})
    with pytest.raises(InputError, match=rf"summary\.json was edited or damaged \({words}"):
        results.load(tmp_path)


def test_load_names_an_edited_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(tmp_path, counted(CLEANLY_LOST, [SMALL_PGD]))
    files.append(tmp_path / "records.jsonl", Record("model", "none", 0, [1, 2], [True, False]))
    assert results.load(tmp_path)
    assert capsys.readouterr().out == ""
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text().replace("true", "false"))
    assert results.load(tmp_path)
    assert "Line 1 of" in capsys.readouterr().out


def test_summary_with_an_edited_accuracy_is_refused(tmp_path: Path) -> None:
    results.save(tmp_path, some_cells())
    path = tmp_path / "summary.json"
    assert results.load(tmp_path) == some_cells()
    path.write_text(path.read_text().replace('"radius": 0.1', '"radius": 0.2', 1))
    with pytest.raises(InputError, match="edited"):
        results.load(tmp_path)


@pytest.mark.parametrize(
    ("threat", "expected"),
    [
        ("Linf:8/255", ("Linf", 8 / 255)),
        ("L2:0.5", ("L2", 0.5)),
        ("Wasserstein:0.1(window=5, exact=False)", ("Wasserstein", 0.1)),
        ("", None),
        ("Linf:8/0", None),
    ],
)
def test_norm_and_radius_of_a_text(threat: str, expected: tuple[str, float] | None) -> None:
    assert norm_and_radius(threat) == expected
