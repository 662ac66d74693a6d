"""A network that fails in the midst of work ends it in a sentence, and what was found before is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import toy_images, trained_classifier
from torch import Tensor, nn

import forefend as ff
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.evaluation.model_run import Run
from forefend.evaluation.result_store import DigestedImages
from forefend.evaluation.trial import Trial
from forefend.models.output_checks import failure_in_network
from forefend.threat_models.lp import Linf

BRIGHT = 17  # the image on which the network fails
TRIAL = Trial("PGD-3", PGD(Linf(0.02), 3, 0.01), Linf(0.02))


class Failing(nn.Module):
    """Fails on batches with the image of a bright corner, once it is armed."""

    armed = False

    def __init__(self) -> None:
        super().__init__()
        self.network = trained_classifier()

    def forward(self, x: Tensor) -> Tensor:
        if self.armed and bool((x[:, 0, 5, 5] > 0.9).any()):
            raise ValueError("no bright corners\nand more")
        logits: Tensor = self.network(x)
        return logits


@pytest.fixture
def data() -> ff.data.ImageDataset:
    """Return 24 images that the network classifies correctly, one of which has a bright corner."""
    x, y, _ = toy_images(24, seed=1, split="test").batch(torch.arange(24))
    x[BRIGHT, 0, 5, 5] = 1
    assert torch.equal(trained_classifier()(x).argmax(1), y)
    return ff.data.from_tensors("toy", x, y, split="test")


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], None]:
    """Return what makes a method arm the network before it runs: all checks have passed by then."""

    def arm_before(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def arming(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(Failing, "armed", True)
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, arming)

    return arm_before


def attacked(folder: Path) -> list[int]:
    """The images that have a verdict under an attack."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return sorted(index for line in lines if line["trial"] != "none" for index in line["index"])


WORK: dict[str, Callable[..., Any]] = {
    "evaluate": lambda network, data, folder: ff.evaluate(network, data, [], folder=folder, batch_size=4),
    "certify": lambda network, data, folder: ff.certify(network, data, sigma=0.01, n0=2, n=10, folder=folder),
    "corruptions": lambda network, data, folder: ff.corruptions(network, data, folder=folder, batch_size=4),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_failure_on_clean_images_is_a_sentence_with_the_error_as_its_cause(
    work: Callable[..., Any], data: Any, arm: Callable[..., None], tmp_path: Path
) -> None:
    arm(DigestedImages, "fetch")
    with pytest.raises(InputError) as caught:
        work(Failing(), data, tmp_path)
    assert " of the data), as Failing raised ValueError: no bright corners: correct its forward, and" in str(
        caught.value
    )
    assert "17" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_failure_in_an_attack_names_model_trial_and_batch_and_the_same_goes_on(
    data: Any, arm: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: Any = {"folder": tmp_path, "batch_size": 4}
    arm(Run, "_attack")
    with pytest.raises(InputError) as caught:
        ff.evaluate(Failing(), data, [TRIAL], **options)
    batch = "in a batch of 4 images (16, 17, 18, 19 of the data)"
    failed = f"classifier: {TRIAL} failed {batch}, as Failing raised ValueError: no bright corners"
    assert str(caught.value).startswith(failed)
    assert str(caught.value).endswith("run the same again to go on from what is recorded.")
    assert attacked(tmp_path) == list(range(16))

    monkeypatch.undo()  # the network is mended
    again = ff.evaluate(Failing(), data, [TRIAL], **options)
    assert attacked(tmp_path) == list(range(24))
    assert [one.accuracy for one in again] == [one.accuracy for one in ff.evaluate(Failing(), data, [TRIAL])]


def test_a_failure_among_images_that_stop_at_success_names_those_in_work(data: Any, arm: Callable[..., None]) -> None:
    arm(Run, "_attack")
    with pytest.raises(InputError, match=r"failed in a batch of \d+ images .* evaluate with a folder, which keeps"):
        ff.evaluate(Failing(), data, "quick", "Linf:0.02", batch_size=4)


def test_an_error_outside_of_networks_is_raised_as_it_is() -> None:
    def raised(error: Exception) -> Exception:
        try:
            raise error
        except type(error) as caught:
            return caught

    for error in (raised(RuntimeError("left its threat model")), raised(InputError("known"))):
        assert failure_in_network(error, "classifier: PGD", [1], kept=True) is error
