"""torch.compile and torch.export of a defended classifier: one graph, with the same logits and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forefend.attacks.base import input_gradient
from forefend.attacks.pgd import PGD
from forefend.losses import ce
from forefend.models.defended import Defended
from forefend.threat_models.lp import Linf

BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]  # compiling C++ takes half a minute


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_is_one_graph_with_the_same_logits_and_gradients(
    backend: str, model: Defended, images: Tensor
) -> None:
    y = model(images).argmax(1)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(images), model(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        input_gradient(compiled, images, y, ce), input_gradient(model, images, y, ce), atol=1e-6, rtol=1e-4
    )


def test_an_attack_on_a_compiled_model_finds_the_same_images(model: Defended, images: Tensor) -> None:
    y = model(images).argmax(1)
    attack = PGD(Linf(0.1), steps=3, step_size=0.04)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(attack(compiled, images, y), attack(model, images, y), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")  # torch's own
def test_an_exported_program_has_the_gradients_of_the_model(model: Defended, images: Tensor, tmp_path: Path) -> None:
    y = model(images).argmax(1)
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},)), tmp_path / "model.pt2")
    again: nn.Module = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(input_gradient(again.__call__, images, y, ce), input_gradient(model, images, y, ce))
