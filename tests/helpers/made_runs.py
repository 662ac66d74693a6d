"""Folders of runs, written by hand: configuration, log, card and evaluations, without a training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from forefend.evaluation.results import Result, save
from forefend.models.card_file import write_card
from forefend.models.saved_identity import identity_in
from forefend.runtime.files import write_versioned


def made_run(
    folder: Path,
    *,
    epochs: int = 4,
    done: int | None = None,
    started: str = "2026-01-02T03:04:05Z",
    recipe: str = "rtfe",
    threat: str = "Linf:8/255",
    ended: bool = True,
    results: Iterable[Result] = (),
    **config: Any,
) -> Path:
    """Write a run; with `results` it has an evaluation."""
    settings = {"threat": threat, "epochs": epochs} if threat else {"epochs": epochs}
    given = {"recipe": recipe, "settings": settings, "data": "digits", "images": 100, "seed": 0, **config}
    write_versioned(folder / "config.json", {"config": given, "about": {"time": started, "versions": {}}})
    lines = [json.dumps({"epoch": n, "step": 10 * n}) for n in range(1, (epochs if done is None else done) + 1)]
    (folder / "train.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if ended:
        card = {"architecture": "toy", "settings": {}, "recipe": recipe}
        write_card(folder / "defense.json", card, save_tensors({"weight": torch.zeros(250)}))
    if found := list(results):
        save(folder / "evaluations/digits-quick", found)
        counted = [{"defense": identity_in(folder)}] if ended else []
        write_versioned(folder / "evaluations/digits-quick/evaluation.json", {"about": {"counted": counted}})
    return folder
