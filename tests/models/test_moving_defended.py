"""A defended classifier is pickled, copied, sent to a process, restored from a checkpoint and moved."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from helpers.toy_networks import classifier, toy_images
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forefend.models import preprocessors
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard
from forefend.models.fingerprint import fingerprint, state_digest
from forefend.models.guide import Guide

X = toy_images(8).batch(torch.arange(8))[0]


def defended(seed: int, given: nn.Module) -> Defended:
    torch.manual_seed(seed)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    card = DefenseCard("narrow-unet", dict(network.settings), "Linf:0.1")  # type: ignore[arg-type]
    return Defended(Defense(network, card).eval(), given).eval()


class Wrapper(nn.Module):
    """What a Lightning module does: it holds the model, so that its checkpoint has the prefix `model.`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def test_a_pickled_defended_answers_alike_and_shares_nothing() -> None:
    given = classifier(1)
    model = defended(0, given)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(X), model(X))
    assert again.defense.card == model.defense.card
    assert not any(module.training for module in again.modules())
    before = fingerprint(given)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert fingerprint(given) == before


def test_a_pickled_guide_is_frozen_and_tells_its_own_state() -> None:
    guide = pickle.loads(pickle.dumps(Guide(classifier(1), "cnn")))
    assert guide.name == "cnn"
    assert guide.state_digest() == state_digest(guide.classifier)
    assert not any(parameter.requires_grad for parameter in guide.requires_grad_().parameters())


def test_a_deep_copy_answers_alike_and_still_watches_the_original() -> None:
    given = classifier(1)
    model = defended(0, given)
    again = copy.deepcopy(model)
    assert torch.equal(again(X), model(X))
    assert again.classifier.state_digest() == model.classifier.state_digest() == state_digest(given)


def test_a_spawned_process_answers_alike() -> None:
    """A spawned process receives the module by pickle; starting Python and torch there takes seconds."""
    model = defended(0, classifier(1)).requires_grad_(False)
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        answer = pool.apply(model, (X,))
        assert torch.equal(answer, model(X))


def test_its_own_state_dict_is_loaded_strictly_and_the_classifier_stays_shared() -> None:
    given = classifier(1)
    model = defended(0, given)
    before, digest = model(X), state_digest(given)
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, strict=True)
    assert torch.equal(model(X), before)
    assert state_digest(given) == digest
    assert model.classifier.classifier[0].weight.data_ptr() == given[0].weight.data_ptr()


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_of_another_classifier_is_loaded_and_the_given_one_stays(assign: bool, tmp_path: Path) -> None:
    saved = Wrapper(defended(0, classifier(1)))
    save_file(saved.state_dict(), tmp_path / "last.safetensors")
    state = load_file(tmp_path / "last.safetensors")
    assert {name.partition(".")[0] for name in state} == {"model"}
    given = classifier(2)
    restored = Wrapper(defended(3, given))
    before = state_digest(given)
    restored.load_state_dict(state, strict=True, assign=assign)
    assert torch.equal(restored(X), saved(X))
    assert state_digest(given) == before
    assert fingerprint(restored.model.classifier.classifier) == fingerprint(classifier(1))
    assert not any(parameter.requires_grad for parameter in restored.model.classifier.parameters())
    with torch.no_grad():
        given[0].weight.zero_()  # the restored model no longer follows it
    assert torch.equal(restored(X), saved(X))


def test_a_state_dict_that_lacks_a_tensor_is_refused_and_the_given_classifier_stays() -> None:
    given = classifier(1)
    model, before = defended(0, given), state_digest(given)
    state = defended(0, classifier(2)).state_dict()
    del state["classifier.classifier.0.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*classifier\.classifier\.0\.weight"):
        model.load_state_dict(state)
    assert state_digest(given) == before


def test_moving_it_leaves_the_classifier_where_it_was() -> None:
    given = classifier(1)
    model, before = defended(0, given).to(torch.float64), state_digest(given)
    assert model(X.double()).dtype is torch.float64
    assert given[0].weight.dtype is torch.float32
    assert state_digest(given) == before
