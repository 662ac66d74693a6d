"""Find and fold BatchNorms that directly follow a layer, as a reference for tests."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def layers_before_norms(net: nn.Module) -> dict[str, str | None]:
    """Map each BatchNorm to the layer whose output it alone reads, or to None."""
    modules = dict(net.named_modules())
    found: dict[str, str | None] = {}
    for node in torch.fx.symbolic_trace(net).graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], NORMS):
            source = node.args[0]
            follows = source.op == "call_module" and isinstance(modules[source.target], WEIGHTED)
            found[node.target] = source.target if follows and len(source.users) == 1 else None
    return found


def folded(net: nn.Module) -> nn.Module:
    """Return a copy with BatchNorms folded into the layers before them."""
    copied = copy.deepcopy(net)
    for norm_name, layer_name in layers_before_norms(net).items():
        if layer_name is not None:
            layer, norm = copied.get_submodule(layer_name), copied.get_submodule(norm_name)
            statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            if isinstance(layer, nn.Linear):
                layer.weight, layer.bias = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
            else:
                transposed = isinstance(layer, nn.ConvTranspose2d)
                layer.weight, layer.bias = fuse_conv_bn_weights(
                    layer.weight, layer.bias, *statistics, transpose=transposed
                )
            copied.set_submodule(norm_name, nn.Identity())
    return copied


def lived_in(net: nn.Module, x: Tensor) -> nn.Module:
    """Return the network in eval mode with random scales and offsets and the statistics of `x`."""
    for module in net.modules():
        if isinstance(module, NORMS):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    with torch.no_grad():
        net.train()(x)
    return net.eval()
