"""Certificates: the numbers of Cohen et al.'s two algorithms, what is refused, lines on disk, and their counting."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from forefend.checks import InputError
from forefend.evaluation.certification import certificate
from forefend.evaluation.certification.certificate import Certificate, Certificates
from forefend.evaluation.certification.smoothing_config import SmoothingConfig
from forefend.evaluation.statistics import wilson
from forefend.runtime import files

ONE = Certificate("net", "toy:ab", str(SmoothingConfig()), 3, "00ff", 1, 1, [0, 990, 10], 1, 0.5, 1)


@pytest.mark.parametrize(("votes", "samples", "alpha"), [(990, 1000, 0.001), (60, 100, 0.05), (99_990, 100_000, 0.001)])
def test_radius_equals_cohens_formula(votes: int, samples: int, alpha: float) -> None:
    bound = stats.beta.ppf(alpha, votes, samples - votes + 1)
    radius = SmoothingConfig(0.5, samples, 100, alpha).radius(votes)
    assert radius == pytest.approx(0.5 * stats.norm.ppf(bound), rel=1e-8)


def test_largest_radius_equals_the_papers_figures() -> None:
    """Cohen et al. name these: all of 100,000 samples at alpha 0.001 certify 3.8 sigma."""
    assert SmoothingConfig(1.0, 100_000).largest_radius == pytest.approx(3.8115, abs=1e-3)
    assert SmoothingConfig(0.25, 100_000).largest_radius == pytest.approx(3.8115 / 4, abs=1e-3)


def test_radius_of_a_bare_majority_is_none() -> None:
    smoothing = SmoothingConfig(0.25, 100, 100, 0.05)
    assert stats.beta.ppf(0.05, 58, 43) < 0.5 < stats.beta.ppf(0.05, 59, 42)
    assert smoothing.radius(58) is None
    assert smoothing.radius(59) == pytest.approx(0.25 * stats.norm.ppf(stats.beta.ppf(0.05, 59, 42)))
    assert smoothing.radius(0) is None


def test_winner_requires_significant_top_two() -> None:
    smoothing = SmoothingConfig(alpha=0.05)
    assert stats.binomtest(15, 20).pvalue < 0.05 < stats.binomtest(14, 20).pvalue
    assert smoothing.winner([5, 70, 15, 0]) == 1
    assert smoothing.winner([15, 980, 5]) == 1
    assert smoothing.winner([0, 0, 15, 5]) == 2
    assert smoothing.winner([0, 6, 0, 14]) is None
    assert smoothing.winner([7, 7]) is None
    assert smoothing.winner([40, 20, 20, 20]) == 0  # a plurality is enough, where CERTIFY wants more than half
    assert smoothing.winner([9]) == 0


REFUSED: dict[str, dict[str, Any]] = {
    "sigma is 0, expected a finite number above 0": {"sigma": 0.0},
    "sigma is -1, expected": {"sigma": -1.0},
    "sigma is nan, expected": {"sigma": float("nan")},
    "sigma is inf, expected": {"sigma": float("inf")},
    "alpha given is 0, expected a number between 0 and 1": {"alpha": 0.0},
    "alpha given is 1, expected": {"alpha": 1.0},
    "alpha given is nan, expected": {"alpha": float("nan")},
    "n0 of samples that select the class is 0, expected at least 1": {"n0": 0},
    "n of samples is 1000, expected at least 2000": {"n0": 2000},
    "n of samples is 9, expected at least 10": {"n": 9, "n0": 1},
    "expected at least 2": {"n": 1, "alpha": 0.5, "n0": 1},
    "n of samples is -5": {"n": -5},
    "seed is -1, expected": {"seed": -1},
}


@pytest.mark.parametrize("words", REFUSED)
def test_smoothing_config_refuses_useless_numbers(words: str) -> None:
    with pytest.raises(InputError) as error:
        SmoothingConfig(**REFUSED[words])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("samples", "alpha"), [(10, 0.001), (2, 0.5), (11, 2**-10), (1, 0.6)])
def test_smoothing_config_accepts_the_fewest_samples(samples: int, alpha: float) -> None:
    assert SmoothingConfig(1.0, samples, 1, alpha).largest_radius > 0
    with pytest.raises(InputError, match="n of samples is"):
        SmoothingConfig(1.0, samples - 1, 1, alpha)


def test_check_radius_out_of_reach_names_the_largest() -> None:
    smoothing = SmoothingConfig(0.25, 1000)
    assert smoothing.largest_radius == pytest.approx(0.25 * stats.norm.ppf(0.001**0.001))
    smoothing.check_radius(0.6)
    with pytest.raises(InputError, match=r"radius 1 is out of reach: .* certify less than 0\.6158; use more samples"):
        smoothing.check_radius(1.0)
    for radius in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a finite number of at least 0"):
            smoothing.check_radius(radius)


def test_read_drops_an_incomplete_last_line(tmp_path: Path) -> None:
    path = tmp_path / "certificates.jsonl"
    assert certificate.read(path) == []
    two = replace(ONE, index=4, certified=None, radius=0.0)
    files.append(path, ONE)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name":"net","sub')
    assert certificate.read(path) == [ONE]
    files.append(path, two)
    assert certificate.read(path) == [ONE, two]


EDITED = [{"more": 1}, {"radius": math.nan}, {"radius": -1}, {"radius": "a"}, {"votes": [1.5]}, {"certified": "0"}]


@pytest.mark.parametrize("line", ["{}", "[]", "no", *(json.dumps(asdict(ONE) | edit) for edit in EDITED)])
def test_read_leaves_out_a_damaged_line(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "certificates.jsonl"
    path.write_text(line + "\n")
    files.append(path, ONE)
    assert certificate.read(path) == [ONE]
    assert capsys.readouterr().out.startswith(f"Line 1 of {path} is not used (")


FOUND = [
    ONE,  # right, 0.5
    replace(ONE, index=4, radius=0.25),
    replace(ONE, index=5, radius=0.6, certified=2, predicted=2),  # wrong, and surely so
    replace(ONE, index=6, radius=0.0, certified=None, predicted=1),  # CERTIFY abstains, PREDICT does not
    replace(ONE, index=7, radius=0.0, certified=None, predicted=None),
]


def test_counts_of_certificates_equal_hand_counts() -> None:
    assert [certificate.certified(FOUND, radius) for radius in (0.0, 0.2, 0.25, 0.4, 0.5, 0.6)] == [2, 2, 1, 1, 0, 0]
    assert certificate.predicted(FOUND) == 3
    assert certificate.abstained(FOUND) == 2
    assert certificate.average_radius(FOUND) == pytest.approx(0.75 / 5)


def test_table_states_what_is_proved() -> None:
    table = Certificates(FOUND, SmoothingConfig()).table([0.0, 0.25])
    heading, _, row, *caption = table.splitlines()
    assert heading.split() == ["smoothed", "clean", "abstained", "L2", "0", "L2", "0.25", "ACR"]
    low, high = wilson(1, 5)
    assert row.startswith("net ")
    assert row.endswith(f"20.0 [{100 * low:.1f}–{100 * high:.1f}] n=5  0.150")
    assert row.count("40.0 [") == 2
    assert row.count("60.0 [") == 1
    words = " ".join(caption)
    for said in ("abstentions count as wrong", "smoothed classifier alone, in l2", "probability at least 1 - 0.001"):
        assert said in words
    assert "Only certify proves; results of evaluate are measured" in words
