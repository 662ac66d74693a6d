"""Our PGD beside others': the committed table is the committed records' own, and foolbox agrees here and now."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, from_x, random_start
from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.records import Record
from forefend.runtime import files
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf

ROOT = Path(__file__).parents[2]

from benchmarks.peers import compare, measure, peers, verdicts
from benchmarks.peers.comparisons import COMPARISONS

RESULTS = ROOT / "results" / "peers"
# foolbox imports from a part of scipy that is going away.
OLD_SCIPY = pytest.mark.filterwarnings("ignore:Please import `:DeprecationWarning")
PGD_FROM_X = "PGD-1(Linf:0.1, step=0.1, loss=ce, start=from_x)"


def test_mcnemars_p_is_the_binomial_tests() -> None:
    for b in range(25):
        for c in range(25):
            expected = binomtest(b, b + c).pvalue if b + c else 1.0
            assert verdicts.mcnemar(b, c) == pytest.approx(expected, rel=1e-12)
    assert verdicts.mcnemar(700, 900) == pytest.approx(binomtest(700, 1600).pvalue, rel=1e-9)
    assert verdicts.mcnemar(1, 9) == 22 / 1024  # by hand: two tails of 1 + 10 in 2¹⁰


def test_every_comparison_is_on_record_in_full() -> None:
    found = {(p.comparison, p.attack, p.peer): p.n for p in verdicts.pairs(RESULTS)}
    starts = (from_x, random_start)
    attacks = [(name, str(c.attack(start))) for name, c in COMPARISONS.items() for start in starts]
    assert found == {(*attack, peer): 1000 for attack in attacks for peer in verdicts.PEERS}
    assert set(verdicts.DISTRIBUTIONS) == set(peers.CRAFTS) == {verdicts.OURS, *verdicts.PEERS}


def test_the_committed_tables_are_the_records_own() -> None:
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert compare.renewed(page, RESULTS) == page
    assert page.count("\n| trades-mnist |") == 3 + 3 + 4


def test_every_bar_is_cleared() -> None:
    assert [p for p in verdicts.pairs(RESULTS) if not p.passes] == []


def test_where_attacks_can_disagree_they_were_compared() -> None:
    for p in verdicts.pairs(RESULTS):
        assert 0.05 * p.n < p.n - p.lost < 0.99 * p.n


def test_the_command_says_by_its_status_whether_the_bars_are_cleared(tmp_path: Path) -> None:
    def status() -> int:
        program = [sys.executable, "-m", "benchmarks.peers.compare", "--check", "--root", str(tmp_path)]
        return subprocess.run(program, cwd=ROOT, capture_output=True, check=False).returncode

    page = "".join(f"<!-- {name} -->\n<!-- end -->\n" for name in ("from x", "at random", "cost"))
    write(tmp_path, {peer: [True] * 10 for peer in peers.CRAFTS})
    (tmp_path / "README.md").write_text(compare.renewed(page, tmp_path))
    assert status() == 0
    (tmp_path / "README.md").write_text(page)
    assert status() == 1
    write(tmp_path, {peer: [peer != "art"] + [True] * 9 for peer in peers.CRAFTS})
    (tmp_path / "README.md").write_text(compare.renewed(page, tmp_path))
    assert status() == 1


def write(root: Path, lost: dict[str, list[bool]], attack: str = PGD_FROM_X) -> None:
    """Records of a comparison of a few images."""
    folder = root / "toy"
    folder.mkdir(exist_ok=True)
    for peer, verdict in lost.items():
        (folder / f"{peer}.jsonl").unlink(missing_ok=True)
        count = len(verdict)
        images = [f"{i:08x}" for i in range(count)]
        files.append(folder / f"{peer}.jsonl", Record("s", f"{peer}: {attack}", 0, list(range(count)), verdict, images))
        toll = {"wall_seconds": 2.0, "cpu_seconds": 1.0, "outside": 0, "furthest": 0.0}
        versions = {verdicts.DISTRIBUTIONS[peer]: "1", "torch": "2"}
        files.write_json(folder / f"{peer}.json", {"versions": versions, "trials": {"from_x": toll}})


def test_images_are_paired_by_index(tmp_path: Path) -> None:
    theirs = [True, True, True, False, False, False, False, True]
    write(tmp_path, {"ours": [True, True, False, False, False, False, True, True], "foolbox": theirs})
    write(tmp_path, dict.fromkeys(("torchattacks", "art"), theirs))
    first = verdicts.pairs(tmp_path)[0]
    assert (first.lost, first.lost_too, first.ours_alone, first.theirs_alone) == (4, 4, 1, 1)
    assert first.same == 0.75
    assert not first.passes
    assert replace(first, attack="PGD-1(Linf:0.1, step=0.1, loss=ce, start=random_start)").passes
    assert replace(first, n=400).passes  # 398 of 400 are 99.5 %
    assert not replace(first, n=399).passes


def test_other_images_and_other_classifiers_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {peer: [True] * 10 for peer in peers.CRAFTS})
    write(tmp_path, {"art": [True] * 9})
    with pytest.raises(InputError, match="art did not judge the images that ours did"):
        verdicts.pairs(tmp_path)
    path = tmp_path / "toy" / "art.jsonl"
    path.write_text(path.read_text().replace('"subject":"s"', '"subject":"t"'))
    with pytest.raises(InputError, match="not of the classifier"):
        verdicts.pairs(tmp_path)
    write(tmp_path, {"art": [True] * 10}, attack="another")
    with pytest.raises(InputError, match="no record of PGD-1"):
        verdicts.pairs(tmp_path)


def test_an_image_outside_is_counted_and_projected_before_it_is_judged(net: nn.Module, x: Tensor, y: Tensor) -> None:
    asked = []

    def network(x_adv: Tensor) -> Tensor:
        asked.append(x_adv)
        return net(x_adv)

    x_adv = x.clone()
    x_adv[2, 0, 0, 0] = x[2, 0, 0, 0] + (0.2 if x[2, 0, 0, 0] < 0.5 else -0.2)
    toll = measure.Toll()
    net.eval()
    lost = measure.judged(network, x_adv, x, y, Linf(0.1), toll)  # type: ignore[arg-type]
    assert (toll.outside, toll.furthest) == (1, pytest.approx(0.1, abs=1e-6))
    assert bool(Linf(0.1).allows(asked[0], x).all())
    assert lost.tolist() == (net(asked[0]).argmax(1) != y).tolist()


@OLD_SCIPY
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
@pytest.mark.parametrize("peer", ["ours", "foolbox"])
def test_a_random_start_is_repeated_by_the_seed_and_differs_between_batches(
    peer: str, threat: Linf | L2, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    pgd = PGD(threat, 1, 1e-4, start=random_start)

    def start(*index: int) -> Tensor:
        rows = slice(0, len(index))
        rng = KeyedRNG(torch.tensor(index), 0, str(pgd))
        return measure.crafted(peers.CRAFTS[peer], net.eval(), (x[rows], y[rows]), pgd, rng, measure.Toll())

    assert torch.equal(start(0, 1, 2), start(0, 1, 2))
    assert (start(0, 1, 2) - start(7, 8, 9)).abs().max() > 0.01
    moved = threat.distance(start(0, 1, 2), x[:3])
    assert bool((moved > 0.1 * threat.radius).all())


@OLD_SCIPY
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
def test_without_a_random_start_foolbox_makes_the_same_images(
    threat: Linf | L2, net: nn.Module, x: Tensor, y: Tensor
) -> None:
    pgd = PGD(threat, 5, threat.radius / 3, start=from_x)
    rng = KeyedRNG(torch.arange(6))
    made = [peers.CRAFTS[peer](net.eval(), x, y, pgd, rng) for peer in ("ours", "foolbox")]
    torch.testing.assert_close(*made, atol=1e-6, rtol=0)
    assert bool((threat.distance(made[0], x) > 0.5 * threat.radius).all())


@OLD_SCIPY
@pytest.mark.parametrize("name", ["fastat-mnist", "convex-fashion", "resnet4b-cifar-l2"])
def test_foolbox_agrees_here_and_now_and_so_do_our_records(name: str, real_data: Path, tmp_path: Path) -> None:
    comparison = COMPARISONS[name]
    network, images = comparison.classifier(), comparison.sample(1000)
    images = images.subset(torch.arange(50))
    pgd = comparison.attack(from_x)
    for peer in ("ours", "foolbox"):
        toll = measure.attack(peer, network, images, pgd, tmp_path / f"{peer}.jsonl")
        assert toll.outside == 0
    (ours,), (theirs,) = (records.read(tmp_path / f"{peer}.jsonl") for peer in ("ours", "foolbox"))
    committed = records.read(RESULTS / name / "ours.jsonl")[0]
    assert (ours.index, ours.images, ours.subject) == (committed.index, committed.images, committed.subject)
    assert 0 < sum(ours.lost) < 50
    # One image of 50 may stand on the edge, and fall the other way on another processor.
    assert sum(a != b for a, b in zip(ours.lost, theirs.lost, strict=True)) <= 1
    assert sum(a != b for a, b in zip(ours.lost, committed.lost, strict=True)) <= 1
