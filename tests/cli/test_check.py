"""`forefend check`: its exit codes, what it leaves and goes on from, which records count, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from helpers.command_line import Answer, done, files, forefend, guide, refused

from forefend.checks import InputError
from forefend.cli import check_work
from forefend.cli.resolve_classifiers import Finder
from forefend.data import ImageDataset, sample
from forefend.data import load as load_images
from forefend.data.dataset import image_digests
from forefend.evaluation.gradient_masking import gate
from forefend.evaluation.gradient_masking.evidence import CheckResult
from forefend.evaluation.records import Record
from forefend.evaluation.result_store import key_of
from forefend.evaluation.results import CLEAN
from forefend.models.classifiers.model_card import save_classifier
from forefend.models.defense import Defense, load
from forefend.models.initialization import new_classifier
from forefend.models.preprocessors import build
from forefend.runtime.distributed import ProcessGroup
from forefend.runtime.files import append

RECORDS = "FAIL the number comes from attackers who see the defense"
LINE = "check run --images 8 --threat Linf:0.8"
KEYS = {"check", "measured", "bound", "passed", "advice"}


@cache
def defended() -> Path:
    """A run known by queries alone; its weights are swapped for a defense that does nothing.

    A denoiser trained for a moment answers with one class: what it gets right cannot be broken, and costs AutoAttack
    minutes to give up.
    """
    run = guide().parent / "hgd"
    done(f"train hgd --data digits --epochs 1 --images 100 --guides {guide()} --out {run}")
    card = replace(load(run).card, architecture="identity", settings={"channels": 1})
    Defense(build("identity", channels=1), card).save(run)
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


def test_a_run_known_by_queries_alone_fails_until_it_is_attacked(run: Path) -> None:
    answer = forefend(LINE)
    assert (answer.code, answer.err) == (1, "")
    assert f"{guide().name}: 1 of 16 checks FAILED\n  {RECORDS}\n" in answer.out
    assert "1 attacks on record, none of them by the defense's gradients" in " ".join(answer.out.split())
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
    out = done(LINE)
    assert "no number on record" in out
    assert out.index("At most ") < out.index("checks FAILED" if "checks FAILED" in out else "passed")
    assert "for all of them as measured on one batch" in out


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


def recorded(folder: Path, *records: Record) -> Path:
    """A folder of records."""
    folder.mkdir(parents=True)
    for record in records:
        append(folder / "records.jsonl", record)
    return folder


BARE = "check --classifiers {guide} --data digits --images 8 --seed 1 --threat Linf:0.8 --records results --out gate"
WHITE = "PGD in Linf:0.8 [white_box]"


def bare() -> tuple[str, ImageDataset]:
    """The key of the guide's verdicts, and the images that `BARE` asks for."""
    network = Finder(split=partial(load_images, "digits"), runs=guide().parent).look_up(str(guide())).network
    images = sample(load_images("digits", "test"), 8, 1)
    return key_of(network, images), images


def stands(line: str = BARE) -> str:
    """What the gate measured of the number on record."""
    forefend(line.format(guide=guide()))
    ((found),) = findings(Path("gate")).values()
    shutil.rmtree("gate")
    return next(str(finding["measured"]) for finding in found if finding["check"].startswith("the number on record"))  # type: ignore[attr-defined]


def test_only_what_was_attacked_on_record_can_stand(here: Path) -> None:
    """All were classified, as a corruption run does, and four attacked: one of those stands; one was always wrong."""
    key, images = bare()
    index = images.index.tolist()
    clean = Record(key, CLEAN, 0, index, [False] * 7 + [True])
    attacked = Record(key, WHITE, 0, index[:4], [True, True, True, False])
    recorded(here / "results", clean, attacked)
    assert stands().startswith("of 5 images judged by both, the records leave 20.0 %")
    shutil.rmtree(here / "results")
    recorded(here / "results", clean)
    assert "records leave" not in stands()  # never attacked: there is nothing to compare


def test_verdicts_of_other_sets_forms_and_pixels_do_not_count(here: Path) -> None:
    key, images = bare()
    index = images.index.tolist()
    x, y, _ = images.batch(torch.arange(8))
    own = Record(key, WHITE, 0, index[:2], [True, False], image_digests(x, y)[:2])
    data, weights, form = key.split(":")
    others = [f"mnist/test:{weights}:{form}", f"digits/train:{weights}:{form}", f"{data}:{weights}:00000000"]
    stale = Record(key, WHITE, 0, index[2:4], [False, False], ["00000000", image_digests(x, y)[3]])
    recorded(here / "results", own, stale, *(Record(other, WHITE, 0, index, [False] * 8) for other in others))
    assert stands().startswith("of 3 images judged by both, the records leave 66.7 %")


def test_a_folder_of_evaluation_records_is_no_place_for_the_gate_s(run: Path, here: Path) -> None:
    before = files(here)
    assert "evaluation's records" in refused(f"{LINE} --out run/evaluations/blind")
    assert files(here) == before
    # Its own, cut short, it goes on from; and they are no evaluation meanwhile.
    recorded(here / "gate", Record("digits/test:0123456789abcdef:01234567", WHITE, 0, [0], [False]))
    (here / "gate" / "check.json").write_text("{}")
    assert forefend(f"{LINE} --out gate").code == 1


def test_a_check_that_is_cut_short_has_marked_its_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        recorded_by_then = (here / "gate" / "check.json").read_text(encoding="utf-8")
        assert json.loads(recorded_by_then) == {}
        raise InputError("cut short")

    monkeypatch.setattr(gate, "check", cut)
    line = f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 --out gate"
    asked: list[str] = []
    monkeypatch.setattr(check_work, "choose_threads", lambda: asked.append("threads"))
    assert refused(line) == "cut short"
    assert asked == ["threads"]


def test_subjects_and_surrogates_go_to_the_device_and_one_process_speaks(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[tuple[int, str | None]] = []
    monkeypatch.setattr(check_work, "placed", lambda networks, device: went.append((len(networks), device)))
    monkeypatch.setattr(
        gate, "check", lambda *_, **more: [CheckResult("a", ",".join(more["surrogates"]), "", False, "")]
    )
    images = load_images("digits", "test")
    for seed in (1, 2):
        (here / str(seed) / "net").mkdir(parents=True)
        save_classifier(here / str(seed) / "net", new_classifier("tinyresnet", images, seed), "tinyresnet", images)
    surrogates = "--surrogates 1/net 2/net"
    line = f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 {surrogates} --out gate"
    line += " --device cpu"
    monkeypatch.setattr(check_work, "processes", lambda: ProcessGroup(1, 2))
    assert forefend(line) == Answer(1, "", "")
    assert went == [(3, "cpu")]
    assert not (here / "gate").exists()
    monkeypatch.setattr(check_work, "processes", lambda: ProcessGroup(0, 2))
    assert forefend(line).code == 1
    assert len(str(findings(here / "gate")[guide().name][0]["measured"]).split(",")) == 2


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
        ("check --data digits --classifiers {guide} --device tpu", "device"),
        ("check --data digits --classifiers {guide} --imags 3", "did you mean --images"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_any_work(line: str, words: str, here: Path) -> None:
    assert words in refused(line.format(guide=guide()))
    assert not list(here.rglob("records.jsonl"))
