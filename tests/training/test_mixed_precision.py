from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from helpers.toy_networks import Stopping, held, same, toy_cast, toy_images, train, trained
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.checks import InputError
from forefend.models.guide import read
from forefend.recipes import RTFE, Adversarial
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable
from forefend.recipes.state import TrainState
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import Linf
from forefend.training.mixed_precision import mixed_precision

SMALL = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)


def images(count: int = 8) -> Tensor:
    return toy_images(count).batch(torch.arange(count))[0]


def test_mixed_precision_returns_float32_outputs() -> None:
    networks, x, inside = toy_cast(), images(), []
    expected = networks.guides[0](networks.preprocessor(x)).detach()
    hook = networks.preprocessor[0].register_forward_hook(lambda module, inputs, output: inside.append(output.dtype))
    with mixed_precision(networks, "bf16") as low:
        z = low.preprocessor(x)
        logits = low.guides[0](z)
        assert inside == [torch.bfloat16]
        assert not torch.is_autocast_enabled("cpu")
    hook.remove()
    assert (z.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_mixed_precision_in_fp32_returns_the_networks() -> None:
    networks = toy_cast()
    with mixed_precision(networks, "fp32") as low:
        assert low is networks
        assert not networks.preprocessor._forward_hooks


def test_mixed_precision_restores_the_networks() -> None:
    networks = toy_cast()
    before = [held(network) for network in (networks.preprocessor, *networks.guides)]
    with mixed_precision(networks, "bf16") as low:
        assert low.preprocessor is networks.preprocessor
        assert not any(guide.classifier._forward_hooks for guide in networks.guides)
    for network, old in zip((networks.preprocessor, *networks.guides), before, strict=True):
        tensors, modes, flags = held(network)
        assert same(tensors, old[0])
        assert (modes, flags) == old[1:]
        assert not network._forward_hooks
        assert not network._forward_pre_hooks


def test_mixed_precision_returns_float32_features() -> None:
    x = images()
    with mixed_precision(toy_cast(), "bf16") as low:
        for network in (low.guides[0].classifier, low.classifier):
            logits, features = read(network, x, ["1"])
            assert (logits.dtype, features["1"].dtype) == (torch.float32, torch.float32)
            assert torch.equal(features["1"], features["1"].bfloat16().float())  # they were computed in less


def test_mixed_precision_after_a_failed_call_leaves_autocast() -> None:
    networks = toy_cast()
    with mixed_precision(networks, "bf16") as low:
        with pytest.raises(RuntimeError):
            low.preprocessor(torch.zeros(2, 5, 6, 6))
        assert not torch.is_autocast_enabled("cpu")
        low.preprocessor(images())


@dataclass(frozen=True)
class Dtypes(Recipe):
    """Keeps the types of what it computes with."""

    seen: list[torch.dtype] = field(default_factory=list)
    epochs: int = 1
    batch_size: int = 40

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        sgd = torch.optim.SGD(networks.preprocessor.parameters(), 0.1)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, sgd, lambda progress: 1.0)}

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        logits = train.guides[0](train.preprocessor(batch.x))
        loss = nn.functional.cross_entropy(logits, batch.y)
        gradient = torch.autograd.grad(loss, next(train.preprocessor.parameters()), retain_graph=True)[0]
        # Attacks see the networks as crafting has them.
        attacked = craft.guides[0](craft.preprocessor(batch.x))
        plain = craft.guides[0].classifier(craft.preprocessor(batch.x))
        assert torch.equal(attacked, plain)
        self.seen.extend((logits.dtype, loss.dtype, gradient.dtype))
        yield "preprocessor", loss


def test_fit_in_bf16_computes_float32_losses() -> None:
    recipe, networks = Dtypes(), toy_cast()
    train(recipe, toy_images(), networks, precision="bf16")
    assert recipe.seen == [torch.float32] * 3
    assert {p.dtype for p in networks.preprocessor.parameters()} == {torch.float32}


@pytest.mark.parametrize("recipe", [SMALL, Adversarial(Linf(0.1), steps=1, epochs=2, batch_size=16)])
def test_fit_in_bf16_resumes_to_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    def run(**options: object) -> list[Tensor]:
        return trained(train(recipe, toy_images(), toy_cast(), precision="bf16", **options))

    expected = run()
    assert same(run(), expected)
    with pytest.raises(KeyboardInterrupt):
        run(run=Run(tmp_path), augment=Stopping(4), checkpoint_every=0)
    assert same(run(run=Run(tmp_path)), expected)


def test_fit_in_bf16_gives_close_weights() -> None:
    start, low, high = (
        torch.cat([t.flatten() for t in trained(networks)])
        for networks in (
            toy_cast(),
            train(SMALL, toy_images(), toy_cast(), precision="bf16"),
            train(SMALL, toy_images(), toy_cast()),
        )
    )
    assert 0 < float((low - high).norm()) < 0.2 * float((high - start).norm())


def test_fit_with_unknown_precision_changes_nothing() -> None:
    networks = toy_cast()
    before = trained(networks)
    with pytest.raises(InputError, match=r"^There is no precision called 'fp16': did you mean 'bf16'\?$"):
        train(replace(SMALL), toy_images(), networks, precision="fp16")
    assert same(trained(networks), before)
