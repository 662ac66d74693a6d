"""torchmetrics and Lightning with a defended classifier: our accuracy, checkpoints, and a classifier that stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.vision_libraries import vision_library
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import forefend as ff
from forefend.models import preprocessors
from forefend.models.defended import Defended
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide

vision_library("torchvision")  # torchmetrics imports it
torchmetrics = pytest.importorskip("torchmetrics", reason="the extra interop is not installed")
lightning = pytest.importorskip("lightning", reason="the extra interop is not installed")
# Lightning's own calls of torch, and its advice to load batches in more processes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '[a-z]+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found [0-9]+ module.s. in eval mode"),  # a guide stays in it
]


class Training(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """A user's module that trains the preprocessor of a defended classifier."""

    def __init__(self, model: Defended) -> None:
        super().__init__()
        self.model = model
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def test_step(self, batch: list[Tensor], number: int) -> None:
        x, y = batch
        self.accuracy(self.model(x), y)
        self.log("accuracy", self.accuracy)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.model.defense.parameters(), 0.01)


def trainer(folder: Path) -> Any:
    return lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def test_accuracy_of_torchmetrics_is_that_of_evaluate(model: Defended, images: Tensor) -> None:
    y = model(images).argmax(1)
    y[:3] = (y[:3] + 1) % 10
    results = ff.evaluate(model, (images, y), [], allow_weak=True)
    micro = torchmetrics.classification.MulticlassAccuracy(10, average="micro")
    assert float(micro(model(images), y)) == results[0].accuracy == 5 / 8


def test_lightning_trains_the_defense_and_restores_it_from_a_checkpoint(
    model: Defended, given: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    y = model(images).argmax(1)
    y[:4] = (y[:4] + 1) % 10
    batches = DataLoader(TensorDataset(images, y), batch_size=4)
    before, defense = Guide(given).state_digest(), fingerprint(model.defense)
    fitted, run = Training(model.train()), trainer(tmp_path)
    run.fit(fitted, batches)
    assert Guide(given).state_digest() == before
    assert fingerprint(model.defense) != defense
    run.save_checkpoint(tmp_path / "last.ckpt")

    trained = fitted.model.eval()(images)
    torch.manual_seed(9)
    fresh = Defended(preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1]), given).eval()
    assert not torch.equal(fresh(images), trained)
    again = Training.load_from_checkpoint(tmp_path / "last.ckpt", model=fresh)
    assert torch.equal(again.model(images), trained)
    (tested,) = trainer(tmp_path).test(again, batches, verbose=False)
    assert tested["accuracy"] == float((trained.argmax(1) == y).float().mean())
