from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import forefend as ff
from forefend.checks import InputError
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.given_images import images_for

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def network(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def of(given: Any, classes: int = 10) -> tuple[str, ...]:
    return images_for([EvaluatedModel("mine", network(classes))], given).classes


@pytest.mark.parametrize("y", [torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([3, 5, 3, 5, 4, 5]), torch.full((6,), 7)])
@pytest.mark.parametrize("form", [lambda y: (X, y), lambda y: TensorDataset(X, y)])
def test_bare_images_have_a_class_for_each_logit(form: Any, y: Tensor) -> None:
    assert of(form(y)) == tuple(map(str, range(10)))


def test_labels_beyond_the_logits_or_from_1_raise() -> None:
    for y in (torch.arange(6), torch.arange(6) - 1):
        with pytest.raises(InputError, match=r"expected 0 … 4 for 5 classes: check that labels start at 0"):
            of((X, y), 5)
    with pytest.raises(InputError, match=r"range over 1 … 6, expected 0 … 5"):
        of((X, torch.arange(6) + 1), 6)


def test_numbered_classes_of_files_follow_the_logits(tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", x=X.numpy(), y=np.array([0, 2] * 3))
    for images in (
        ff.data.load(tmp_path / "few.npz", "test"),
        ff.data.from_tensors("few", X, torch.tensor([0, 2] * 3)),
    ):
        assert (len(images.classes), len(of(images)), len(of(images, 3))) == (3, 10, 3)
        assert len(of(images.subset(torch.arange(2)))) == 10
        assert len(of(images, 2)) == 3  # which later checks refuse
        with pytest.raises(InputError, match=r"returns shape \(2, 2\), expected \(2, 3\)"):
            ff.evaluate(network(2), images, [], allow_weak=True)
    named = ff.data.from_tensors("few", X, torch.tensor([0, 2] * 3), classes=4)
    assert len(of(named)) == 4


def test_named_classes_are_kept() -> None:
    images = ff.data.from_tensors("mine", X, torch.tensor([0, 1] * 3), classes=("cat", "dog"))
    assert of(images) == ("cat", "dog")
    with pytest.raises(InputError, match=r"returns shape \(2, 10\), expected \(2, 2\)"):
        ff.evaluate(network(), images, [], allow_weak=True)


def test_every_measurement_takes_images_that_lack_classes() -> None:
    model, y = network().train(), torch.tensor([3, 5, 3, 5, 4, 5])
    assert [found.n for found in ff.evaluate(model, (X, y), [], allow_weak=True)] == [6]
    assert len(ff.certify(model, (X, y), n=20, n0=10, alpha=0.1)) == 6
    assert ff.corruptions(model, (X, y), corruptions=["brightness"], severities=[1])
    assert model.training


def test_network_that_changes_itself_is_restored() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(x)

    counting = Counting()
    with pytest.raises(InputError, match="mine changes its own buffers"):
        images_for([EvaluatedModel("mine", counting)], (X, torch.zeros(6, dtype=torch.int64)))
    assert counting.calls == 0


def few_labels() -> tuple[Tensor, Tensor]:
    """Images of three of the ten classes."""
    return X, torch.tensor([0, 1, 2] * 2)


def test_fit_takes_the_number_of_classes_from_the_logits() -> None:
    def trained(data: Any) -> nn.Module:
        torch.manual_seed(0)
        cast = ff.Networks(classifier=network())
        return ff.fit(ff.recipes.Natural(epochs=1, batch_size=3), data, cast, accelerator=Accelerator(cpu=True))

    told = ff.data.from_tensors("data", *few_labels(), classes=10, split="train")
    expected = trained(told).state_dict()
    for given in (few_labels(), TensorDataset(*few_labels()), ff.data.from_tensors("data", *few_labels())):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in trained(given).state_dict().items())


def test_fit_asks_the_guide_and_leaves_it_as_it_was() -> None:
    guide = network().train()
    before = ff.Guide(guide).state_digest()
    cast = ff.Networks(ff.preprocessors.narrow_unet(channels=1), [ff.Guide(guide)])
    recipe = ff.recipes.RTFE(threat=ff.Linf(0.1), steps=1, epochs=1, batch_size=3)
    ff.fit(recipe, few_labels(), cast, accelerator=Accelerator(cpu=True))
    assert ff.Guide(guide).state_digest() == before


def test_transfer_and_inspect_take_the_number_of_classes_from_the_logits() -> None:
    assert ff.inspect(network(), few_labels()).classes == 10
    defense = ff.Defense(ff.preprocessors.narrow_unet(channels=1), ff.DefenseCard("narrow-unet")).eval()
    matrix = ff.transfer(
        defense, {"mine": network()}, few_labels(), threat="Linf:0.1", attacks=["fgsm"], allow_weak=True
    )
    assert {cell.n for cell in matrix.cells} == {6}
