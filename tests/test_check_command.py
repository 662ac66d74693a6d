"""`forefend check`: its exit codes, what it leaves and goes on from, which records count, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from door import done, forefend, guide, refused

from forefend.defence import Defence, load
from forefend.preprocessors import build

RECORDS = "FAIL the number comes from attackers who see the defence"
LINE = "check run --images 8 --threat Linf:0.8"
KEYS = {"check", "measured", "bound", "passed", "advice"}


@cache
def defended() -> Path:
    """A run known by oblivious attacks and queries alone; its weights are swapped for a defence that does nothing.

    A denoiser trained for a moment answers with one class: what it gets right cannot be broken, and costs AutoAttack
    minutes to give up.
    """
    run = guide().parent / "hgd"
    done(f"train hgd --data digits --epochs 1 --images 100 --guides {guide()} --out {run}")
    card = replace(load(run).card, architecture="identity", settings={"channels": 1})
    Defence(build("identity", channels=1), card).save(run)
    attacked = "--images 8 --threat Linf:0.8 --suite black-box --allow-weak-classifier"
    done(f"evaluate {run} {attacked} --out {run}/evaluations/blind")
    return run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(defended(), here / "run")
    return here / "run"


def findings(folder: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    return found


def test_a_bare_classifier_passes_and_a_second_check_reads_what_the_first_found(here: Path) -> None:
    line = f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 --out gate"
    first = done(line)
    assert f"{guide().name}: passed" in first
    found = findings(here / "gate")
    assert list(found) == [guide().name]
    assert all(set(finding) == KEYS and finding["passed"] for finding in found[guide().name])
    assert len(found[guide().name]) == 16
    before = (here / "gate" / "records.jsonl").read_bytes()
    again = done(line)
    assert again[again.index(": passed") :] == first[first.index(": passed") :]
    assert (here / "gate" / "records.jsonl").read_bytes() == before
    assert findings(here / "gate") == found


def test_a_run_known_by_oblivious_attacks_and_queries_alone_fails_until_it_is_attacked(run: Path) -> None:
    answer = forefend(LINE)
    assert (answer.code, answer.err) == (1, "")
    assert f"{guide().name}: 1 of 16 checks FAILED\n  {RECORDS}\n" in answer.out
    assert "2 attacks on record, none of them by the defence's gradients" in " ".join(answer.out.split())
    assert "what to do: evaluate with the suite standard" in answer.out
    assert (run / "check" / "records.jsonl").exists()
    ((found),) = findings(run / "check").values()
    assert [finding["check"] for finding in found if not finding["passed"]] == [RECORDS.removeprefix("FAIL ")]
    # The gate's own records are no evaluation, wherever they lie.
    assert forefend(f"{LINE} --out run/elsewhere").code == 1
    assert forefend(LINE).code == 1
    done("evaluate run --images 8 --threat Linf:0.05 --suite quick --allow-weak-classifier --out run/evaluations/small")
    assert forefend(LINE).code == 1  # white-box, of another threat model
    done("evaluate run --images 8 --threat Linf:0.8 --suite quick --allow-weak-classifier --out run/evaluations/quick")
    assert forefend(LINE).code == 0


def test_a_run_without_a_number_is_checked_by_the_gate_s_own_attacks(run: Path) -> None:
    shutil.rmtree(run / "evaluations")
    assert "no number on record" in done(LINE)


def test_records_may_lie_elsewhere(run: Path, here: Path) -> None:
    shutil.move(run / "evaluations", here / "results")
    assert forefend(LINE).code == 0
    assert forefend(f"{LINE} --records results").code == 1
    shutil.rmtree(run / "check")
    (here / "empty").mkdir()
    assert refused(f"{LINE} --records empty").startswith("empty: no records.jsonl lies there")
    assert not (run / "check").exists()


def test_records_of_others_do_not_count(run: Path, here: Path) -> None:
    text = (run / "evaluations" / "blind" / "records.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["subject"] = "digits/test:0123456789abcdef:01234567"
    (here / "results").mkdir()
    (here / "results" / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = forefend(f"{LINE} --records results")
    assert answer.code == 1
    assert "0 attacks on record" in answer.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check", "No images were named"),
        ("check --data digits", "name a run, or a classifier"),
        ("check nowhere", "nowhere"),
        ("check --data digits --classifiers {guide} --images 0", "images is 0, expected at least 1"),
        ("check --data digits --classifiers {guide} --batch-size 0", "batch_size is 0, expected at least 1"),
        ("check --data digits --classifiers {guide} --threat L1:3", "no norm called 'L1'"),
        ("check --data digits --classifiers {guide} --threat Linf:0", "give Linf or L2 with one radius above 0"),
        ("check --data digits --classifiers {guide} --threat Wasserstein:0.1", "give Linf or L2"),
        ("check --data digits --classifiers {guide} --threat Linf:8", "did you mean 8/255"),
        ("check --data digits --classifiers {guide} --surrogates nobody", "nobody"),
        ("check --data digits --classifiers {guide} --imags 3", "did you mean --images"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_any_work(line: str, words: str, here: Path) -> None:
    assert words in refused(line.format(guide=guide()))
    assert not list(here.rglob("records.jsonl"))
