"""Attack cases as text, and models as loading leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.speed.cases import MODELS, AttackCase, parse_case
from forefend.attacks.auto_pgd import APGD
from forefend.attacks.pgd import PGD
from forefend.checks import InputError


@pytest.mark.parametrize("restarts", [1, 5])
@pytest.mark.parametrize("apgd", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_parse_case_inverts_str(name: str, apgd: bool, restarts: int) -> None:
    case = AttackCase(name, 20, restarts, None, apgd)
    assert parse_case(str(case)) == case
    assert parse_case(f"{case}, 12 images") == AttackCase(name, 20, restarts, 12, apgd)
    assert case.count == MODELS[name].count


@pytest.mark.parametrize("case", ["PGD-20", "PGD-x on resnet20", "FGSM-1 on resnet20", "PGD-2 on vgg", ""])
def test_parse_case_other_text_is_refused(case: str) -> None:
    with pytest.raises(InputError):
        parse_case(case)


def test_attack_has_the_settings_of_the_case() -> None:
    pgd, apgd = AttackCase("resnet20", 7).attack(), AttackCase("resnet20", 7, apgd=True).attack()
    assert isinstance(pgd, PGD)
    assert isinstance(apgd, APGD)
    assert (pgd.steps, apgd.steps) == (7, 7)
    assert pgd.step_size == pytest.approx(0.25 / 255)


def test_random_weights_are_equal_in_every_call() -> None:
    model = MODELS["random weights"]
    a, b = model.network(), model.network()
    (x, y, index), (x_again, y_again, _) = model.images(8), model.images(8)
    assert torch.equal(x, x_again)
    assert torch.equal(y, y_again)
    with torch.no_grad():
        assert torch.equal(a(x), b(x))
        assert torch.equal(a(x).argmax(1), y)
    assert not a.training
    assert all(parameter.requires_grad for parameter in a.parameters())
    assert model.missing_file() == ""
    assert index.tolist() == list(range(8))


def test_missing_file_returns_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREFEND_DATA", str(tmp_path))
    assert MODELS["resnet20"].missing_file() == str(tmp_path / "classifiers" / "chenyaofo-cifar10-resnet20.pth")


@pytest.mark.parametrize("name", ["resnet20", "defended resnet20", "resnet4b"])
def test_published_classifiers_are_accurate(name: str, real_data: Path) -> None:
    model = MODELS[name]
    assert model.missing_file() == ""
    network = model.network()
    x, y, _ = model.images(50)
    with torch.no_grad():
        assert float((network(x).argmax(1) == y).float().mean()) > 0.6
    assert all(parameter.requires_grad for parameter in network.parameters())
