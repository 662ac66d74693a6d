"""captum explains a defended classifier: its gradients are those of autograd, its attributions sum up to the logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from forefend.models.defended import Defended

attr = pytest.importorskip("captum.attr", reason="the extra interop is not installed")


def gained(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    """What each image's logit has over that of a black image."""
    with torch.no_grad():
        return (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]


def test_saliency_is_the_gradient_of_autograd(model: Defended, images: Tensor) -> None:
    y = torch.arange(8)
    x = images.clone().requires_grad_()
    expected = torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), x)[0]
    found = attr.Saliency(model).attribute(images.clone().requires_grad_(), target=y, abs=False)
    assert torch.equal(found, expected)
    assert bool((expected.flatten(1).norm(dim=1) > 0).all())


def test_integrated_gradients_of_a_linear_classifier_are_weight_times_pixel(linear: Defended, images: Tensor) -> None:
    y = torch.arange(8) % 2
    expected = linear.classifier.classifier[1].weight.detach()[y].view_as(images) * images
    torch.testing.assert_close(attr.IntegratedGradients(linear).attribute(images, target=y), expected)


def test_integrated_gradients_through_a_defense_sum_up_to_the_logit(model: Defended, images: Tensor) -> None:
    y = torch.arange(8)
    found = attr.IntegratedGradients(model).attribute(images, target=y, n_steps=100)
    torch.testing.assert_close(found.flatten(1).sum(1).float(), gained(model, images, y), atol=1e-3, rtol=0)


def test_the_defense_is_attributed_as_a_layer(model: Defended, images: Tensor) -> None:
    """Saliency at the output of the defense is the gradient of the classifier alone."""
    y = torch.arange(8)
    x = model.defense(images).detach().requires_grad_()
    expected = torch.autograd.grad(model.classifier(x).gather(1, y[:, None]).sum(), x)[0]
    layer = attr.LayerGradientXActivation(model, model.defense)
    torch.testing.assert_close(layer.attribute(images.clone().requires_grad_(), target=y), expected * x.detach())
