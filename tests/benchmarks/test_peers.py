"""PGD beside that of other libraries: the committed tables and records, and a fresh run of foolbox."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from benchmarks import pages
from benchmarks.peers import baselines, compare, measure, verdicts
from benchmarks.peers.comparisons import COMPARISONS
from forefend.attacks.pgd import PGD, from_x, random_start
from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.records import Record
from forefend.runtime import files
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "peers"
# foolbox imports from a deprecated module of scipy.
OLD_SCIPY = pytest.mark.filterwarnings("ignore:Please import `:DeprecationWarning")
PGD_FROM_X = "PGD-1(Linf:0.1, step=0.1, loss=ce, start=from_x)"


def test_mcnemar_matches_the_binomial_test() -> None:
    for b in range(12):
        for c in range(12):
            expected = binomtest(b, b + c).pvalue if b + c else 1.0
            assert verdicts.mcnemar(b, c) == pytest.approx(expected, rel=1e-12)
    assert verdicts.mcnemar(700, 900) == pytest.approx(binomtest(700, 1600).pvalue, rel=1e-9)
    assert verdicts.mcnemar(1, 9) == 22 / 1024  # by hand: two tails of 1 + 10 in 2¹⁰


def test_pairs_cover_every_comparison_in_full() -> None:
    found = {(p.comparison, p.attack, p.baseline): p.n for p in verdicts.pairs(RESULTS)}
    starts = (from_x, random_start)
    attacks = [(name, str(c.attack(start))) for name, c in COMPARISONS.items() for start in starts]
    assert found == {(*attack, name): 1000 for attack in attacks for name in verdicts.OTHERS}
    assert set(verdicts.DISTRIBUTIONS) == set(baselines.BASELINES) == {verdicts.OURS, *verdicts.OTHERS}


def test_committed_tables_match_the_records() -> None:
    assert pages.renew(RESULTS / "README.md", compare.blocks(RESULTS), check=True)
    assert [table.count("\n| trades-mnist |") for table in compare.blocks(RESULTS).values()] == [3, 3, 4]


def test_pairs_reach_every_target() -> None:
    assert [p for p in verdicts.pairs(RESULTS) if not p.passes] == []


def test_pairs_accuracies_allow_disagreement() -> None:
    for p in verdicts.pairs(RESULTS):
        assert 0.05 * p.n < p.n - p.broken < 0.99 * p.n


def test_compare_exit_status_tells_missed_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def status() -> int:
        monkeypatch.setattr(sys, "argv", ["compare", "--check", "--root", str(tmp_path)])
        return compare.main()

    page = "".join(f"<!-- {name} -->\n<!-- end -->\n" for name in ("from x", "at random", "cost"))
    write(tmp_path, {name: [True] * 10 for name in baselines.BASELINES})
    (tmp_path / "README.md").write_text(pages.filled(page, compare.blocks(tmp_path)))
    assert status() == 0
    (tmp_path / "README.md").write_text(page)
    assert status() == 1
    write(tmp_path, {name: [name != "art"] + [True] * 9 for name in baselines.BASELINES})
    (tmp_path / "README.md").write_text(pages.filled(page, compare.blocks(tmp_path)))
    assert status() == 1


def write(root: Path, misclassified: dict[str, list[bool]], attack: str = PGD_FROM_X) -> None:
    """Write the records of a comparison of a few images."""
    folder = root / "toy"
    folder.mkdir(exist_ok=True)
    for name, verdict in misclassified.items():
        (folder / f"{name}.jsonl").unlink(missing_ok=True)
        count = len(verdict)
        images = [f"{i:08x}" for i in range(count)]
        files.append(folder / f"{name}.jsonl", Record("s", f"{name}: {attack}", 0, list(range(count)), verdict, images))
        cost = {"wall_seconds": 2.0, "cpu_seconds": 1.0, "outside": 0, "furthest": 0.0}
        versions = {verdicts.DISTRIBUTIONS[name]: "1", "torch": "2"}
        files.write_json(folder / f"{name}.json", {"versions": versions, "trials": {"from_x": cost}})


def test_pairs_match_images_by_index(tmp_path: Path) -> None:
    theirs = [True, True, True, False, False, False, False, True]
    write(tmp_path, {"ours": [True, True, False, False, False, False, True, True], "foolbox": theirs})
    write(tmp_path, dict.fromkeys(("torchattacks", "art"), theirs))
    first = verdicts.pairs(tmp_path)[0]
    assert (first.broken, first.broken_by_baseline, first.ours_alone, first.theirs_alone) == (4, 4, 1, 1)
    assert first.same == 0.75
    assert not first.passes
    assert replace(first, attack="PGD-1(Linf:0.1, step=0.1, loss=ce, start=random_start)").passes
    assert replace(first, n=400).passes  # 398 of 400 are 99.5 %
    assert not replace(first, n=399).passes


def test_pairs_of_other_images_or_classifiers_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {name: [True] * 10 for name in baselines.BASELINES})
    write(tmp_path, {"art": [True] * 9})
    with pytest.raises(InputError, match="art attacked other images"):
        verdicts.pairs(tmp_path)
    path = tmp_path / "toy" / "art.jsonl"
    other = replace(records.read(path)[0], model="t")
    path.unlink()
    files.append(path, other)
    with pytest.raises(InputError, match="another classifier"):
        verdicts.pairs(tmp_path)
    write(tmp_path, {"art": [True] * 10}, attack="another")
    with pytest.raises(InputError, match="no record of PGD-1"):
        verdicts.pairs(tmp_path)


def test_misclassified_counts_and_projects_images_outside(net: nn.Module, x: Tensor, y: Tensor) -> None:
    seen = []

    def network(x_adv: Tensor) -> Tensor:
        seen.append(x_adv)
        return net(x_adv)

    x_adv = x.clone()
    x_adv[2, 0, 0, 0] = x[2, 0, 0, 0] + (0.2 if x[2, 0, 0, 0] < 0.5 else -0.2)
    cost = measure.Cost()
    net.eval()
    lost = measure.misclassified(network, x_adv, x, y, Linf(0.1), cost)  # type: ignore[arg-type]
    assert (cost.outside, cost.furthest) == (1, pytest.approx(0.1, abs=1e-6))
    assert bool(Linf(0.1).allows(seen[0], x).all())
    assert lost.tolist() == (net(seen[0]).argmax(1) != y).tolist()


@OLD_SCIPY
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
@pytest.mark.parametrize("name", ["ours", "foolbox"])
def test_attacked_random_start_depends_on_seed_and_batch(
    name: str, threat: Linf | L2, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    pgd = PGD(threat, 1, 1e-4, start=random_start)

    def start(*index: int) -> Tensor:
        rows = slice(0, len(index))
        rng = KeyedRNG(torch.tensor(index), 0, str(pgd))
        return measure.attacked(baselines.BASELINES[name], net.eval(), (x[rows], y[rows]), pgd, rng, measure.Cost())

    assert torch.equal(start(0, 1, 2), start(0, 1, 2))
    assert (start(0, 1, 2) - start(7, 8, 9)).abs().max() > 0.01
    moved = threat.distance(start(0, 1, 2), x[:3])
    assert bool((moved > 0.1 * threat.radius).all())


@OLD_SCIPY
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
def test_foolbox_without_random_start_returns_our_images(
    threat: Linf | L2, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    pgd = PGD(threat, 5, threat.radius / 3, start=from_x)
    rng = KeyedRNG(torch.arange(6))
    made = [baselines.BASELINES[name](net.eval(), x, y, pgd, rng) for name in ("ours", "foolbox")]
    torch.testing.assert_close(*made, atol=1e-6, rtol=0)
    assert bool((threat.distance(made[0], x) > 0.5 * threat.radius).all())


@OLD_SCIPY
@pytest.mark.parametrize("name", ["fastat-mnist", "convex-fashion", "resnet4b-cifar-l2"])
def test_foolbox_and_committed_records_agree_with_ours(name: str, real_data: Path, tmp_path: Path) -> None:
    comparison = COMPARISONS[name]
    network, images = comparison.classifier(), comparison.sample(1000)
    images = images.subset(torch.arange(50))
    pgd = comparison.attack(from_x)
    for library in ("ours", "foolbox"):
        cost = measure.attack(library, network, images, pgd, tmp_path / f"{library}.jsonl")
        assert cost.outside == 0
    (ours,), (theirs,) = (records.read(tmp_path / f"{library}.jsonl") for library in ("ours", "foolbox"))
    committed = records.read(RESULTS / name / "ours.jsonl")[0]
    assert (ours.index, ours.images, ours.model) == (committed.index, committed.images, committed.model)
    assert 0 < sum(ours.misclassified) < 50
    # The verdict of one image in 50 may differ on another processor.
    assert sum(a != b for a, b in zip(ours.misclassified, theirs.misclassified, strict=True)) <= 1
    assert sum(a != b for a, b in zip(ours.misclassified, committed.misclassified, strict=True)) <= 1
