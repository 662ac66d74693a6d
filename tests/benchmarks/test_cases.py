"""Targets: cases that are read as they were written, and networks as loading leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.speed.cases import TARGETS, AttackCase, read
from forefend.attacks.auto_pgd import APGD
from forefend.attacks.pgd import PGD
from forefend.checks import InputError


@pytest.mark.parametrize("restarts", [1, 5])
@pytest.mark.parametrize("apgd", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_a_case_is_read_as_it_was_written(target: str, apgd: bool, restarts: int) -> None:
    assault = AttackCase(target, 20, restarts, None, apgd)
    assert read(str(assault)) == assault
    assert read(f"{assault}, 12 images") == AttackCase(target, 20, restarts, 12, apgd)
    assert assault.count == TARGETS[target].count


@pytest.mark.parametrize("case", ["PGD-20", "PGD-x on resnet20", "FGSM-1 on resnet20", "PGD-2 on vgg", ""])
def test_what_is_no_case_is_refused(case: str) -> None:
    with pytest.raises(InputError):
        read(case)


def test_the_attack_has_the_cases_settings() -> None:
    pgd, apgd = AttackCase("resnet20", 7).ours(), AttackCase("resnet20", 7, apgd=True).ours()
    assert isinstance(pgd, PGD)
    assert isinstance(apgd, APGD)
    assert (pgd.steps, apgd.steps) == (7, 7)
    assert pgd.step_size == pytest.approx(0.25 / 255)


def test_random_weights_are_the_same_each_time_and_stand_as_loading_leaves_them() -> None:
    target = TARGETS["random weights"]
    a, b = target.network(), target.network()
    (x, y, index), (x_again, y_again, _) = target.images(8), target.images(8)
    assert torch.equal(x, x_again)
    assert torch.equal(y, y_again)
    with torch.no_grad():
        assert torch.equal(a(x), b(x))
        assert torch.equal(a(x).argmax(1), y)
    assert not a.training
    assert all(parameter.requires_grad for parameter in a.parameters())
    assert target.lacks() == ""
    assert index.tolist() == list(range(8))


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREFEND_DATA", str(tmp_path))
    assert TARGETS["resnet20"].lacks() == str(tmp_path / "classifiers" / "chenyaofo-cifar10-resnet20.pth")


@pytest.mark.parametrize("name", ["resnet20", "defended resnet20", "resnet4b"])
def test_others_classifiers_see(name: str, real_data: Path) -> None:
    target = TARGETS[name]
    assert target.lacks() == ""
    network = target.network()
    x, y, _ = target.images(100)
    with torch.no_grad():
        assert float((network(x).argmax(1) == y).float().mean()) > 0.6
    assert all(parameter.requires_grad for parameter in network.parameters())
