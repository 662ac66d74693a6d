from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers import Normalized
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import frozen
from forefend.models.guide import Guide, check_guides, read
from forefend.recipes.ensemble import every, in_turn, sampled
from forefend.runtime.rng import KeyedRNG

THREE = [Guide(nn.Identity(), name) for name in "abc"]
DRAW = KeyedRNG(torch.arange(4), seed=1)


def test_a_guide_answers_like_its_classifier_in_eval_mode(net: nn.Module, x: Tensor) -> None:
    guide = Guide(net, "cnn")
    assert torch.equal(guide(x), copy.deepcopy(net).eval()(x))
    assert guide.name == "cnn"


def test_a_guide_cannot_be_thawed(net: nn.Module, x: Tensor) -> None:
    guide = Guide(net)
    before = guide(x)
    assert guide.train() is guide
    assert guide.requires_grad_() is guide
    pipeline = nn.Sequential(nn.Conv2d(3, 3, 1), guide).train()
    pipeline(x).sum().backward()
    assert not any(module.training for module in guide.modules())
    assert not any(parameter.requires_grad for parameter in guide.parameters())
    assert all(parameter.grad is None for parameter in guide.parameters())
    assert pipeline[0].weight.grad is not None
    assert torch.equal(guide(x), before)


def test_the_original_is_not_touched(net: nn.Module, x: Tensor) -> None:
    print_ = fingerprint(net)
    guide = Guide(net)
    guide.read(x, ["0", "3.2"])
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert guide.fingerprint() == print_ == fingerprint(net)


def test_taps_give_what_the_modules_put_out(net: nn.Module, x: Tensor) -> None:
    guide = Guide(net)
    logits, activations = guide.read(x, ["1", "3.2"])
    twin = copy.deepcopy(net).eval()
    torch.testing.assert_close(activations["1"], twin[1](twin[0](x)))
    assert torch.equal(activations["3.2"], logits)
    assert torch.equal(logits, guide(x))
    assert guide.read(x, [])[1] == {}


def test_taps_pass_gradients_to_the_image_and_leave_no_hook(net: nn.Module, x: Tensor) -> None:
    guide = Guide(net)
    x.requires_grad_()
    guide.read(x, ["1"])[1]["1"].square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any()
    assert not any(module._forward_hooks for module in guide.modules())
    with pytest.raises(RuntimeError):
        guide.read(x[:, :2], ["1"])
    assert not any(module._forward_hooks for module in guide.modules())


def test_a_network_in_training_can_be_read_too(net: nn.Module, x: Tensor) -> None:
    _, activations = read(net, x, ["1"])
    activations["1"].sum().backward()
    assert net[0].weight.grad is not None
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_a_wrapped_classifier_s_taps_keep_their_names(net: nn.Module, x: Tensor) -> None:
    wrapped = Guide(Normalized(net, (0.5,) * 3, (0.2,) * 3))
    _, activations = wrapped.read(x, ["1"])
    torch.testing.assert_close(activations["1"], Guide(net).read((x - 0.5) / 0.2, ["1"])[1]["1"])


def test_an_unknown_tap_is_refused_with_the_nearest_one(x: Tensor) -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1, self.layer2 = nn.Identity(), nn.Identity()

    for classifier in (Body(), Normalized(Body(), (0.5,) * 3, (0.2,) * 3)):
        with pytest.raises(InputError, match=r"no tap in this classifier called 'layr2': did you mean 'layer2'\?"):
            Guide(classifier).read(x, ["layr2"])
        assert not any(module._forward_hooks for module in classifier.modules())


def test_a_guide_s_frozen_view_is_a_guide(net: nn.Module, x: Tensor) -> None:
    guide = Guide(net, "cnn")
    view = frozen(nn.Sequential(nn.Identity(), guide))
    assert torch.equal(view(x), guide(x))
    assert view[1].fingerprint() == guide.fingerprint()


def test_every_serves_all_and_in_turn_one_after_the_other() -> None:
    assert every(THREE, DRAW) is THREE
    served = [in_turn(THREE, DRAW.fold_in(step=step)) for step in range(6)]
    assert served == [[guide] for guide in THREE * 2]


def test_sampled_serves_one_drawn_uniformly_for_each_step() -> None:
    served = [sampled(THREE, DRAW.fold_in(step=step)) for step in range(3000)]
    assert all(len(one) == 1 for one in served)
    count = [sum(one[0] is guide for one in served) for guide in THREE]
    assert sum((n - 1000) ** 2 / 1000 for n in count) < 13.8  # 2 degrees of freedom, one in a thousand
    stays = sum(one[0] is next_[0] for one, next_ in pairwise(served))
    assert abs(stays - 1000) < 4 * (3000 * 2 / 9) ** 0.5


def test_sampled_depends_on_step_and_seed_and_not_on_the_images() -> None:
    steps = range(64)
    served = [sampled(THREE, DRAW.fold_in(step=step)) for step in steps]
    assert [sampled(THREE, KeyedRNG(torch.tensor([9]), seed=1, purpose="x", step=step)) for step in steps] == served
    assert [sampled(THREE, KeyedRNG(torch.arange(4), seed=2, step=step)) for step in steps] != served


def test_no_guide_is_refused() -> None:
    check_guides(THREE)
    with pytest.raises(InputError, match="No guide was given"):
        check_guides([])
