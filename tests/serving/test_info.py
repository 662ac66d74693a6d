"""What a server says was measured: what the model card states, with intervals."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.serving import client, service, toy_pipeline

from forefend.evaluation.statistics import wilson
from forefend.models.defense_readme import Measured, accuracies_on, files_of
from forefend.serving.info import describe, model_card
from forefend.serving.limits import Limits


def card(*accuracies: tuple[str, float]) -> str:
    measured = Measured("", "", "digits/test", "| table |", accuracies, [])
    content = {"architecture": "", "settings": {}, "threat": "", "recipe": "", "data": "", "guides": [], "ema": None}
    return files_of(content, [measured], "")["README.md"].decode()


def test_accuracies_of_the_card_have_their_intervals() -> None:
    made = toy_pipeline()
    text = card(("toy (guide) behind the defense, PGD-20, Linf 0.1, n=500, seed 0", 61.4))
    info = describe(made, Limits(), text, resize=False)
    low, high = wilson(307, 500)
    (found,) = info["measured"]
    assert found["data"] == "digits/test"
    assert found["accuracies"][0]["percent"] == 61.4
    assert found["accuracies"][0]["interval"] == pytest.approx([100 * low, 100 * high], abs=0.006)
    assert info["model_card"] == text


def test_card_without_evaluations_states_nothing() -> None:
    with client(service()) as server:
        info = server.get("/info").json()
    assert info["measured"] == []
    assert "states no accuracy" in info["model_card"]
    assert info["classifier"]["fingerprint"] == toy_pipeline().identity


@pytest.mark.parametrize("page", ["", "# mine", "---\n---\n", "---\n[1\n---\n", "---\nmodel-index: 3\n---\n"])
def test_page_of_somebody_else_states_nothing(page: str, tmp_path: Path) -> None:
    assert accuracies_on(page) == []
    (tmp_path / "release.json").write_text("{}")
    (tmp_path / "README.md").write_text(page)
    assert model_card(toy_pipeline().defense, tmp_path) == page
