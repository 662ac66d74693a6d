from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forefend.attacks.n_fgsm import NFGSM
from forefend.attacks.pgd import fgsm
from forefend.checks import InputError
from forefend.losses import Loss, ce, margin
from forefend.models.fingerprint import state_digest
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf

THREAT = Linf(0.1)
WEIGHT = torch.tensor([[1.0, -2.0, 0.0, 0.5], [0.0, 1.0, 0.0, 2.0]])


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHT.T.to(x.dtype)


def images(count: int = 6) -> tuple[Tensor, Tensor, KeyedRNG]:
    x = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(count) % 2, KeyedRNG(torch.arange(count), 3)


def test_nfgsm_equals_the_algorithm_written_out() -> None:
    x, y, rng = images()
    x_adv = NFGSM(THREAT, noise=2.0, relative_step=0.5)(linear, x, y, rng=rng)
    noisy = (x + 0.2 * (2 * rng.uniform(x) - 1)).clamp(0, 1)
    # The loss of either class rises along the difference of the two rows, the other's less its own.
    way = torch.stack([WEIGHT[1 - label] - WEIGHT[label] for label in y.tolist()]).sign().view_as(x)
    torch.testing.assert_close(x_adv, (noisy + 0.05 * way).clamp(0, 1))


def test_nfgsm_leaves_the_ball_but_not_the_pixel_range() -> None:
    x, y, rng = images(40)
    x_adv = NFGSM(THREAT)(linear, x, y, rng=rng)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert 0.2 < float((x_adv - x).abs().max()) <= 0.3 + 1e-6
    assert not THREAT.allows(x_adv, x).all()


@pytest.mark.parametrize("loss", [ce, margin])
def test_nfgsm_without_noise_equals_fgsm(loss: Loss) -> None:
    x, y, rng = images()
    x_adv = NFGSM(THREAT, noise=0.0, loss=loss)(linear, x, y, rng=rng)
    torch.testing.assert_close(x_adv, fgsm(THREAT, loss)(linear, x, y, rng=rng))


def test_result_of_an_image_is_independent_of_its_batch() -> None:
    x, y, rng = images()
    alone = torch.cat([NFGSM(THREAT)(linear, x[[i]], y[[i]], rng=rng.select(torch.tensor([i]))) for i in range(6)])
    assert torch.equal(alone, NFGSM(THREAT)(linear, x, y, rng=rng))


def test_radius_per_image_is_supported() -> None:
    x, y, rng = images()
    radii = torch.tensor([0.0, 0.0, 0.0, 0.1, 0.1, 0.1])
    x_adv = NFGSM(Linf(radii))(linear, x, y, rng=rng)
    assert torch.equal(x_adv[:3], x[:3])
    assert torch.equal(x_adv[3:], NFGSM(THREAT)(linear, x, y, rng=rng)[3:])


def test_attack_restores_the_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    before = state_digest(network)
    x, y, rng = images()
    NFGSM(THREAT)(network, x, y, rng=rng)
    assert state_digest(network) == before


def test_settings_are_told_apart() -> None:
    attacks = [NFGSM(THREAT), NFGSM(Linf(0.2)), NFGSM(THREAT, noise=1), NFGSM(THREAT, relative_step=1.25)]
    assert len({str(attack) for attack in (*attacks, NFGSM(THREAT, loss=margin))}) == 5


def test_nfgsm_with_bad_settings_raises() -> None:
    with pytest.raises(InputError, match=r"L2:0\.5.*Linf"):
        NFGSM(L2(0.5))
    with pytest.raises(InputError, match=r"noise.*-1 radii.*at least 0"):
        NFGSM(THREAT, noise=-1.0)
