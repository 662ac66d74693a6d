from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_networks import NORMS, folded, layers_before_norms, lived_in
from helpers.narrow_preprocessors import SLENDER, slender
from safetensors.torch import load_file, save_file
from torch import Tensor

from forefend.checks import InputError
from forefend.models.preprocessors import ARCHITECTURES, build

BOUNDED = ["aaa-autoencoder", "ape-gan", "narrow-unet", "nrp-23", "nrp-3", "rtfe-unet"]


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 7, 9), (1, 1, 28, 28), (1, 3, 33, 47), (1, 3, 1, 5)])
def test_shape_and_type_are_kept(name: str, shape: tuple[int, ...]) -> None:
    net = slender(name, channels=shape[1]).eval()
    restored = net(images(*shape))
    assert restored.shape == shape
    assert restored.dtype == torch.float32
    assert restored.isfinite().all()


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bounded_output_keeps_pixels_in_range_whatever_comes(name: str) -> None:
    net = slender(name, channels=1) if name != "nrp-23" else build(name, channels=1, blocks=1)
    restored = net(50 * torch.randn(4, 1, 8, 8))
    assert restored.min() >= 0
    assert restored.max() <= 1


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_pixel(name: str, training: bool) -> None:
    torch.manual_seed(0)
    x = images(2, 3, 9, 8).requires_grad_()
    restored = slender(name).train(training)(x)
    (gradient,) = torch.autograd.grad((restored * images(*restored.shape)).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_settings_written_as_json_rebuild_the_function(name: str) -> None:
    net = slender(name, channels=1).eval()
    settings = json.loads(json.dumps(net.settings))
    x = images(2, 1, 7, 7)
    for rebuilt in (build(name, **settings), type(net)(**settings)):
        rebuilt.load_state_dict(net.state_dict())
        assert rebuilt.settings == net.settings == {"channels": 1} | SLENDER[name]
        assert torch.equal(rebuilt.eval()(x), net(x))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_a_batch_do_not_mix_in_evaluation(name: str) -> None:
    net = slender(name).eval()
    x = images(3, 3, 9, 9)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["narrow-unet", "residual-unet", "ape-gan", "nrp-3", "robustifier-4"])
def test_torch_export_computes_the_same_for_any_batch(name: str) -> None:
    net = slender(name, channels=1).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (images(2, 1, 9, 8),), dynamic_shapes=({0: batch},))
    x = images(5, 1, 9, 8)
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "identity"])
def test_a_few_steps_move_every_parameter_and_lower_the_loss(name: str) -> None:
    net = slender(name).train()
    before = [parameter.clone() for parameter in net.parameters()]
    x = F.avg_pool2d(images(6, 3, 12, 12), 3, 1, 1)
    x_noisy = x + 0.1 * torch.randn_like(x)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = F.mse_loss(net(x_noisy), x)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_trained_network_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    x = images(4, 1, 9, 9)
    net = lived_in(slender(name, channels=1), x)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    rebuilt = build(name, **net.settings).eval()
    rebuilt.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(rebuilt(x), net(x))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batchnorm_folds_into_the_layer_before_it(name: str) -> None:
    x = images(4, 3, 9, 9)
    net = lived_in(slender(name), x)
    layers = layers_before_norms(net)
    assert len(layers) == sum(isinstance(module, NORMS) for module in net.modules())
    assert None not in layers.values()
    torch.testing.assert_close(folded(net)(x), net(x), rtol=1e-3, atol=1e-4)


def test_the_empty_preprocessor_returns_the_images_themselves() -> None:
    x = images(2, 3, 4, 4)
    assert build("identity", channels=3)(x) is x


def test_an_unknown_architecture_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match="no preprocessor architecture called 'narow-unet': did you mean 'narrow-unet'"
    ):
        build("narow-unet", channels=3)


@pytest.mark.parametrize("channels", [0, -1, 3.0])
def test_channels_out_of_range_are_refused(channels: int) -> None:
    with pytest.raises(InputError, match=f"channels.* {channels}"):
        build("identity", channels=channels)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError, match="'narrow-unet' does not take the settings width"):
        build("narrow-unet", channels=3, width=8)
