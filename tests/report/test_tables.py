from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.results import attacked, cell, some_cells

from forefend.checks import InputError
from forefend.evaluation import results
from forefend.evaluation.statistics import wilson
from forefend.report import tables


def test_one_row_a_subject_one_column_a_radius_and_the_worst_attack_in_it() -> None:
    heading, rows = tables.rows_of(some_cells())
    assert heading == ["classifier", "defense", "clean", "Linf 8/255", "Linf 0.1"]
    assert [row[:2] for row in rows] == [["cnn (guide)", "no"], ["cnn (guide)", "yes"], ["other (unseen)", "yes"]]
    assert [[word.split(" ")[0] for word in row[2:]] for row in rows] == [
        ["95.0", "5.0", "–"],
        ["80.0", "45.0", "–"],
        ["90.0", "–", "40.0"],
    ]


def test_each_attack_may_have_a_row_of_its_own() -> None:
    heading, rows = tables.attacks_of(some_cells())
    assert heading == ["classifier", "defense", "attack", "Linf 8/255", "Linf 0.1"]
    assert [row[:3] for row in rows[:3]] == [["cnn", "no", "FGSM"], ["cnn", "no", "PGD"], ["cnn", "no", "worst"]]
    assert [[word.split(" ")[0] for word in row[3:]] for row in rows] == [
        *(["30.0", "–"], ["10.0", "–"], ["5.0", "–"]),
        *(["60.0", "–"], ["50.0", "–"], ["45.0", "–"], ["–", "40.0"]),
    ]


def test_a_block_is_laid_out_as_its_first_word_says(tmp_path: Path) -> None:
    results.save(tmp_path / "here", some_cells())
    renewed = tables.renewed("<!-- attacks here -->\n<!-- end -->\n<!-- table here -->\n<!-- end -->", tmp_path)
    assert renewed.count("| attack |") == 1
    assert renewed.count("| clean |") == 1
    assert tables.renewed(renewed, tmp_path) == renewed


def test_every_figure_carries_its_interval_and_its_number_of_images() -> None:
    _, rows = tables.rows_of(some_cells())
    assert rows[0][2] == "95.0 [91.0–97.3] n=200"
    words = [word for row in rows for word in row[2:] if word != "–"]
    assert len(words) == 6
    assert all(word.endswith("n=200") and "[" in word and "–" in word for word in words)


def test_text_is_aligned_and_ends_with_what_was_measured() -> None:
    lines = str(results.Results(some_cells())).splitlines()
    assert lines[1] == "-" * max(map(len, lines[:-1]))
    assert lines[0].index("clean") == lines[2].index("95.0") == lines[4].index("90.0")
    assert lines[-1].startswith("accuracy in %, [95% Wilson interval]; attacks: FGSM, PGD")
    assert lines[-1].endswith("seed 0")
    assert "worst" not in lines[-1].split(";")[1].split(",")[0]


def test_markdown_has_a_rule_and_as_many_cells_in_every_line() -> None:
    lines = tables.markdown(some_cells()).splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    assert {line.count("|") for line in lines[:5]} == {6}
    assert lines[-1] == tables.caption(some_cells())


def test_clean_accuracy_alone_names_no_attack() -> None:
    assert tables.caption([cell("cnn", 0.9, seed=3)]) == "accuracy in %, [95% Wilson interval]; seed 3"
    assert tables.rows_of([cell("cnn", 0.9)])[0] == ["classifier", "defense", "clean"]


def test_numbers_of_fast_are_not_taken_for_those_of_autoattack() -> None:
    assert "attacks: fast (not AutoAttack), the worst" in tables.caption([cell("cnn", 0.5, attack="fast")])


def test_columns_are_ordered_by_norm_and_radius_with_the_clean_one_first() -> None:
    cells = [attacked("cnn", 0.1, "PGD", r, norm=n) for n, r in (("Linf", 0.2), ("L2", 1.0), ("Linf", 0.1))]
    assert tables.rows_of([*cells, cell("cnn", 0.9)])[0][2:] == ["clean", "L2 1", "Linf 0.1", "Linf 0.2"]


def test_a_documents_tables_are_made_anew_from_their_evaluations(tmp_path: Path) -> None:
    results.save(tmp_path / "results", some_cells())
    document = "Before.\n<!-- table results -->\nold\n<!-- end -->\nBetween <!-- end -->\n"
    renewed = tables.renewed(document, tmp_path)
    assert "old" not in renewed
    assert tables.markdown(some_cells()) in renewed
    assert renewed.startswith("Before.\n<!-- table results -->\n")
    assert renewed.endswith("\n<!-- end -->\nBetween <!-- end -->\n")
    assert tables.renewed(renewed, tmp_path) == renewed
    with pytest.raises(InputError, match=r"summary.json"):
        tables.renewed(document.replace("results", "elsewhere"), tmp_path)


def test_headline_shows_the_largest_radius_without_and_with_the_defense(tmp_path: Path) -> None:
    results.save(tmp_path / "here", some_cells())
    text = tables.renewed("<!-- headline here#cnn -->\n<!-- end -->", tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| [here](here)"))
    assert row.startswith("| [here](here) | cnn (guide) | Linf 8/255 | FGSM, PGD | 5.0 [")
    assert "| 45.0 [" in row
    assert tables.renewed(text, tmp_path) == text


def test_headline_of_a_classifier_without_attacks_is_refused(tmp_path: Path) -> None:
    results.save(tmp_path / "here", some_cells())
    with pytest.raises(InputError, match="'vgg'"):
        tables.renewed("<!-- headline here#vgg -->\n<!-- end -->", tmp_path)


def test_cumulative_counts_an_image_at_every_larger_radius() -> None:
    found = tables.cumulative(results.Results([replace(cell("cnn", 0.5), n=20, cumulative=0.4)], ["weak"]))
    assert found.warnings == ["weak"]
    assert (found[0].accuracy, found[0].low, found[0].high) == (0.4, *wilson(8, 20))


def test_over_seeds_gives_mean_deviation_and_maximum() -> None:
    runs = [[replace(cell("cnn", 0.5), accuracy=share)] for share in (0.1, 0.2, 0.6)]
    heading, rows = tables.over_seeds(runs)
    assert heading[4:] == ["mean", "sd", "max", "runs"]
    assert [row[4:] for row in rows] == [["30.0", "26.5", "60.0", "3"]]
    with pytest.raises(InputError, match="two or more"):
        tables.over_seeds(runs[:1])
    with pytest.raises(InputError, match="equal ones of several seeds"):
        tables.over_seeds([runs[0], [replace(runs[1][0], attack="other")]])
