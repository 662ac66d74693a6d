"""The evidence page: its sections, numbers, gaps and grades, against runs whose counts are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import evidence_runs
from helpers.command_line import done, forefend, refused
from helpers.small_budgets import SMALL_CHECKS
from helpers.toy_networks import trained_classifier

from forefend.checks import InputError
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.check import check
from forefend.evaluation.results import Results, load
from forefend.evaluation.statistics import wilson
from forefend.models.defended import Defended
from forefend.report.evidence import commands, declaration, masking, published
from forefend.report.evidence.evaluations import FoundEvaluation, z_of
from forefend.report.evidence.page import evidence
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import Figure, Gallery, Link, Notice, Page, Section, Table
from forefend.report.page.blocks import Verdict as VerdictBlock

ORDER = ["verdict", "untested", "identity", "accuracy", "transfer", "checks", "classes", "certificates", "published"]
ORDER += ["cost", "reproduce", "declaration", "standards"]


def section(page: Page, name: str) -> Section:
    return next(section for section in page.sections if section.id == name)


def text_of(found: Section) -> str:
    return str(found.blocks)


def test_page_has_every_section_in_the_order_of_an_auditor(full_page: Page) -> None:
    page = full_page
    assert [section.id for section in page.sections] == ORDER
    assert all(section.blocks for section in page.sections)


def test_verdict_states_threat_knowledge_images_interval_and_date(bare: Path, bare_page: Page) -> None:
    (verdict,) = (block for block in section(bare_page, "verdict").blocks if isinstance(block, VerdictBlock))
    worst = next(r for r in load(bare) if (r.defended, r.attack, r.radius) == (True, "worst", 0.2))
    alone = next(r for r in load(bare) if (r.defended, r.attack, r.radius) == (False, "worst", 0.2))
    assert (
        f"{100 * worst.accuracy:.1f} % (95 % interval {100 * worst.low:.1f}–{100 * worst.high:.1f} %)"
        in verdict.sentence
    )
    assert f"and {100 * alone.accuracy:.1f} % without the defense" in verdict.sentence
    assert "white-box attacker, who knows the whole model and may change each pixel by at most 0.2" in verdict.sentence
    assert "40 images of toy/test, seed 0, under PGD-3 and PGD-5" in verdict.details
    assert json.loads((bare / "evaluation.json").read_text())["about"]["time"][:10] in verdict.details


def test_confidence_counts_every_interval_again(full: Path) -> None:
    data = dict(evidence(full, confidence=0.99).data or {})
    robust = data["headlines"][0]["robust"]
    count = round(robust["value"] * robust["n"])
    assert (robust["low"], robust["high"]) == pytest.approx(wilson(count, 40, 2.5758293035489004))
    assert z_of(0.95) == pytest.approx(1.959963984540054)


def test_page_without_checks_says_so_and_names_the_command(bare: Path, bare_page: Page) -> None:
    page = bare_page
    (notice,) = section(page, "checks").blocks
    assert isinstance(notice, Notice)
    assert notice.command == f"forefend check {bare} --threat Linf:0.2"
    assert section(page, "checks").grade == "missing"
    assert "gradient masking" in [row[0] for row in section(page, "untested").blocks[0].rows]  # type: ignore[union-attr]


def test_untested_is_never_empty(full_page: Page, bare_page: Page) -> None:
    for page in (full_page, bare_page):
        gaps = {one["what"] for one in dict(page.data or {})["not_tested"]}
        assert {"AutoAttack", "L2 attacks", "an adaptive attack", "more than 40 images", "a proof"} <= gaps
    assert "transferred images" not in {one["what"] for one in dict(full_page.data or {})["not_tested"]}


def test_classifier_is_unchanged_if_its_fingerprint_is_that_of_the_card(run: Path) -> None:
    assert "'unchanged'" in text_of(section(evidence(run), "identity"))
    card = json.loads((run / "defense.json").read_text())
    card["guides"][0]["fingerprint"] = "0" * 16
    del card["digests"]
    (run / "defense.json").write_text(json.dumps(card))
    page = evidence(run)
    assert "'another network'" in text_of(section(page, "identity"))
    assert page.grade == "failed"


def test_checks_show_bound_remedy_and_the_failure_that_reviewers_know(full_page: Page) -> None:
    found = section(full_page, "checks")
    (table,) = (block for block in found.blocks if isinstance(block, Table))
    first = [str(cell) for cell in table.rows[0]]
    assert first == [
        "random noise does not beat attacks",
        "FAIL",
        "noise breaks 9.0 %",
        "at most 1 of 40",
        "incomplete optimization",
        "advice 2",
    ]
    assert [str(row[1]) for row in table.rows] == ["FAIL", "skipped", "PASS"]
    assert found.grade == "failed"


def test_every_check_has_its_failure() -> None:
    model = Defended(evidence_runs.defense(), trained_classifier())
    report = check(model, evidence_runs.images(), "Linf:0.2", budget=SMALL_CHECKS)
    assert {result.check for result in report} == masking.FAILURES.keys()


def test_classes_are_counted_from_recorded_labels(bare: Path, bare_page: Page) -> None:
    found = section(bare_page, "classes")
    (table,) = (block for block in found.blocks if isinstance(block, Table))
    worst = next(r for r in load(bare) if (r.defended, r.attack, r.radius) == (True, "worst", 0.2))
    assert sum(int(str(row[1])) for row in table.rows) == 40
    assert sum(round(row[3].value * row[3].n) for row in table.rows) == round(worst.accuracy * 40)  # type: ignore[union-attr]
    assert {str(row[0]) for row in table.rows} == set(evidence_runs.NAMES)


def test_classes_without_recorded_labels_follow_from_correct_predictions(run: Path, bare_page: Page) -> None:
    held = json.loads((run / "evaluation.json").read_text())
    del held["about"]["labels"]
    (run / "evaluation.json").write_text(json.dumps(held))
    assert str(section(evidence(run), "classes").blocks[:2]) == str(section(bare_page, "classes").blocks[:2])


def test_failures_are_shown_from_the_pictures_that_evaluate_kept(bare_page: Page) -> None:
    (gallery,) = (block for block in section(bare_page, "classes").blocks if isinstance(block, Gallery))
    assert len(gallery.rows) == 3
    for pictures, text in gallery.rows:
        assert [picture.png[:4] for picture in pictures] == [b"\x89PNG"] * 4
        assert all(picture.alt.startswith("Image ") for picture in pictures)
        assert "when attacked" in text


def test_run_without_pictures_names_the_command(run: Path) -> None:
    (run / "pictures.safetensors").unlink()
    last = section(evidence(run), "classes").blocks[-1]
    assert isinstance(last, Notice)
    assert last.command.endswith("--suite quick --threat Linf:0.2 --pictures 8")


def test_drawings_have_their_numbers_in_words(full_page: Page) -> None:
    figures = [block for part in full_page.sections for block in part.blocks if isinstance(block, Figure)]
    assert len(figures) == 3  # curve, heat map, classes
    assert all("%" in figure.alt and figure.svg.startswith("<svg") for figure in figures)


def test_published_figure_is_shown_only_for_the_same_cell(bare_page: Page) -> None:
    assert not any(isinstance(block, Table) for block in section(bare_page, "published").blocks)
    name = "trades-mnist-smallcnn-robust"
    measured = load(Path(__file__).parents[3] / "results/published" / name)
    one = FoundEvaluation(Path(name), measured, data="mnist/test")
    same = Sources(Path(name), classifiers={name: {"architecture": "smallcnn"}}, evaluations=[one])
    (table,) = published.section(same).blocks
    assert isinstance(table, Table)
    assert [str(row[3]).split(" ")[0] for row in table.rows] == ["91.8", "92.8"]
    assert table.rows[1][4] == Link("AutoAttack, table of its authors", "https://github.com/fra31/auto-attack")
    other = Sources(Path(name), classifiers={name: {"architecture": "lenet5"}}, evaluations=[one])
    assert not any(isinstance(block, Table) for block in published.section(other).blocks)


def test_declaration_shows_what_is_missing(tmp_path: Path, bare: Path) -> None:
    given = tmp_path / "about.yaml"
    given.write_text("responsible: A. Person\nfallback: a person decides\n")
    found = section(evidence(bare, about=given), "declaration")
    assert "'A. Person'" in text_of(found)
    assert text_of(found).count("Mark(grade='missing'") == len(declaration.FIELDS) - 2
    assert found.grade == "partial"


@pytest.mark.parametrize(
    "written", ["2026-13-45", "2026-11-30 25:61:00", "190:20:30", "007", "yes", "!!timestamp soon"]
)
def test_declaration_keeps_what_was_written(tmp_path: Path, written: str) -> None:
    given = tmp_path / "about.yaml"
    given.write_text(f"approved: {written}\nmonitoring:\nfallback: null\n")
    assert declaration.read(given) == {"approved": written.removeprefix("!!timestamp ")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("responsible: [a, b]", "is a list, expected one text"),
        ("who: me", "There is no field in"),
        ("- a", "holds no fields"),
        ("a: [", "is not YAML"),
        ("responsible: !!set {a, b}", "expected one text"),
        ('responsible: "\\ud800"', "holds characters that cannot be shown"),
    ],
)
def test_wrong_declaration_is_refused(tmp_path: Path, bare: Path, content: str, said: str) -> None:
    path = tmp_path / "about.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        evidence(bare, about=path)


def test_requirements_are_supported_and_never_met(full_page: Page) -> None:
    text = text_of(section(full_page, "standards"))
    assert "supports, by:" in text
    assert "compl" not in text.replace("grade='complete', text='complete'", "")
    for name in ("Annex IV(2)(g)", "Art. 15", "24029-2", "24029-3", "NIST AI 100-2"):
        assert name in text


def test_grade_of_a_page_is_the_worst_of_its_sections(full_page: Page, bare_page: Page) -> None:
    assert full_page.grade == "failed"  # a check failed
    assert bare_page.grade == "missing"


def test_latency_and_cost_are_shown_where_they_were_recorded(full_page: Page, bare: Path, bare_page: Page) -> None:
    cost = text_of(section(full_page, "cost"))
    assert "12,345" in cost
    assert "at most 14 gradients" in cost
    assert f"forefend latency {bare}" in text_of(section(bare_page, "cost"))


def test_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert "holds no run and no evaluation" in refused(f"report {tmp_path} --html {tmp_path}/a.html")
    assert "There is no folder" in refused(f"report {tmp_path}/nothing --html {tmp_path}/a.html")
    assert not (tmp_path / "a.html").exists()


def test_command_writes_the_page_and_prints_other_forms(bare: Path, tmp_path: Path) -> None:
    out = done(f"report {bare} --html {tmp_path}/page.html --confidence 0.99")
    assert "grade: missing" in out
    assert "99 % interval" in (tmp_path / "page.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert done(f"report {bare} --format markdown").startswith("# Evidence: bare")
    assert json.loads(done(f"report {bare} --format json"))["format"] == 1
    assert "--seeds belongs to a table" in refused(f"report {bare} --html {tmp_path}/a.html --seeds")
    assert "belong to a page" in refused(f"report {bare} --confidence 0.99")
    for value in ("2", "0.9999999999999999"):
        assert "expected 0.5 to 0.999999" in refused(f"report {bare} --html {tmp_path}/a.html --confidence {value}")


@pytest.mark.parametrize("name", ["records.jsonl", "summary.json", "weights.safetensors"])
def test_page_is_not_written_over_a_file_of_its_run(bare: Path, name: str) -> None:
    before = (bare / name).read_bytes()
    assert "belongs to the run and would be lost" in refused(f"report {bare} --html {bare / name}")
    assert (bare / name).read_bytes() == before
    assert "is a folder, expected a file for the page" in refused(f"report {bare} --html {bare}")


@pytest.mark.parametrize("written", ["'my data.npz' --suite quick", '"my data.npz" --suite quick'])
def test_commands_name_the_same_models_whatever_their_paths(written: str) -> None:
    one = FoundEvaluation(Path("e"), Results(), about={"about": {"command": f"forefend evaluate --data {written}"}})
    assert "--data 'my data.npz'" in commands.forefend("check", Sources(Path("e"), evaluations=[one]))
    older = FoundEvaluation(Path("e"), Results(), about={"about": {"command": "forefend evaluate --data it's.npz"}})
    assert "it'\"'\"'s.npz" in commands.forefend("check", Sources(Path("e"), evaluations=[older]))


def test_commands_that_fill_gaps_are_commands(full_page: Page, bare_page: Page, tmp_path: Path) -> None:
    """Those of a run, and of an evaluation without one, which names its classifiers and where results go."""
    model = EvaluatedModel("cnn", trained_classifier())
    evaluate([model], evidence_runs.images(), evidence_runs.suite()[:2], folder=tmp_path / "alone")
    alone = evidence(tmp_path / "alone")
    for page in (full_page, bare_page, alone):
        data = dict(page.data or {})
        lines = {gap["command"] for gap in (*data["missing"], *data["not_tested"])} - {"", declaration.COMMAND}
        failed = {line: forefend(f"{line.removeprefix('forefend ')} --print_config").err for line in lines}
        assert {line: error for line, error in failed.items() if error} == {}
    assert all("--classifiers YOURS" in line and f"--out {tmp_path}/alone" in line for line in lines)
    assert len(lines) > 5
