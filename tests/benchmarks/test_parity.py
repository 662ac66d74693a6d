"""Fast training beside faithful training: tables, targets and the protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pages
from benchmarks.parity import page, protocol
from benchmarks.parity.protocol import EIGHTH, FAITHFUL, SEEDS, TASKS, folder_of
from forefend import checks
from forefend.evaluation.records import Record
from forefend.runtime import files

RESULTS = Path(__file__).parents[2] / "results" / "parity"
TASK = next(iter(TASKS))
EIGHTH_TARGET = replace(page.TARGETS[1], under="autoattack")


def write_run(root: Path, variant: str, seed: int, *, broken: set[int], gradients: int, n: int = 1000) -> None:
    """Write the results of a run where AutoAttack breaks these images and image 0 is misclassified when clean."""
    folder = folder_of(root, TASK, variant, seed)
    files.write_json(folder / "cost.json", {"image_gradients": gradients, "weight_gradients": 10, "cpu_seconds": 100.0})
    files.write_json(folder / "autoattack" / "summary.json", [])
    index = list(range(n))
    path = folder / "autoattack" / "records.jsonl"
    files.append(path, Record("key", "none", 0, index, [i == 0 for i in index]))
    files.append(path, Record("key", "AutoAttack", 0, index[1:], [i in broken for i in index[1:]]))


def write_both(root: Path, ours: set[int], theirs: set[int], gradients: int = 70) -> None:
    for seed in SEEDS:
        write_run(root, FAITHFUL, seed, broken=theirs, gradients=630)  # and 10 of the weights
        write_run(root, EIGHTH, seed, broken=ours, gradients=gradients)


def test_blocks_match_the_committed_page() -> None:
    assert pages.renew(RESULTS / "README.md", page.blocks(RESULTS), check=True)


def test_reached_equal_runs_reach_the_target(tmp_path: Path) -> None:
    write_both(tmp_path, ours=set(range(1, 101)), theirs=set(range(1, 101)))
    (row,) = page.reached(tmp_path, TASK, EIGHTH_TARGET)
    assert row[2] == "1000"
    assert row[3] == "+0.00 [-0.20, +0.20]"  # equal runs still have an interval
    assert row[5] == "1/8.00"
    assert row[-1] == "yes"


def test_reached_one_gradient_too_many_is_no(tmp_path: Path) -> None:
    write_both(tmp_path, ours=set(), theirs=set(), gradients=71)
    (row,) = page.reached(tmp_path, TASK, EIGHTH_TARGET)
    assert row[-1] == "NO"


def test_reached_interval_below_the_margin_is_no(tmp_path: Path) -> None:
    write_both(tmp_path, ours=set(range(1, 116)), theirs=set(range(1, 101)))  # 1.5 points worse, 2 are allowed
    (row,) = page.reached(tmp_path, TASK, EIGHTH_TARGET)
    assert row[3].startswith("-1.50 [-2.2")
    assert row[4] == "-1.5, -1.5, -1.5"
    assert row[-1] == "NO"


def test_reached_one_failing_seed_is_no(tmp_path: Path) -> None:
    for seed, ours in zip(SEEDS, (range(1, 161), range(1, 71), range(1, 71)), strict=True):
        write_run(tmp_path, FAITHFUL, seed, broken=set(range(1, 101)), gradients=630)
        write_run(tmp_path, EIGHTH, seed, broken=set(ours), gradients=70)
    (row,) = page.reached(tmp_path, TASK, EIGHTH_TARGET)
    assert row[4] == "-6.0, +3.0, +3.0"
    assert row[-1] == "NO"


def test_reached_faithful_runs_at_chance_is_no(tmp_path: Path) -> None:
    write_both(tmp_path, set(range(150, 1000)), set(range(150, 1000)))
    (row,) = page.reached(tmp_path, TASK, EIGHTH_TARGET)
    assert row[-1] == "NO"


def test_reached_fewer_images_than_the_protocol_is_no(tmp_path: Path) -> None:
    for seed in SEEDS:
        write_run(tmp_path, FAITHFUL, seed, broken=set(), gradients=630, n=900)
        write_run(tmp_path, EIGHTH, seed, broken=set(), gradients=70, n=900)
    (row,) = page.reached(tmp_path, TASK, EIGHTH_TARGET)
    assert row[-1] == "NO"


# Options of training as the committed runs recorded them, which were made before the options had their names.
RECORDED = {
    "single-step": {"inner-attack": ["n-fgsm"]},
    "warm-started": {"inner-attack": ["atta"]},
    "warm-then-two": {"inner-attack": ["atta"], "atta-steps": ["1", "1", "1", "2"]},
    "warm-deepening": {"inner-attack": ["atta"], "atta-steps": ["1", "2", "3"]},
    "warm-noised": {"inner-attack": ["atta"], "atta-steps": ["2", "3"], "atta-noise": ["0.5"]},
    "prepared-bf16": {"attack-copy": ["bf16"]},
    None: {},
}
INNER = ("inner-attack", "atta-steps", "atta-noise")
RUNS = pytest.mark.parametrize(
    ("task", "variant"), [(name, variant) for name, task in TASKS.items() for variant in task.epochs]
)


def number(value: Any) -> Any:
    """Return a float where the value is a number in any notation."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def options(task: str, variant: str) -> dict[str, list[str]]:
    """Return the options of the command of a run; the last one counts where one is repeated."""
    found: dict[str, list[str]] = {}
    for argument in protocol.command(task, variant, 1)[2:]:
        if argument.startswith("--"):
            values = found[argument[2:]] = []
        else:
            values.append(argument)
    return found


@RUNS
def test_command_matches_the_config_of_committed_runs(task: str, variant: str) -> None:
    guides = set()
    folders = [folder_of(RESULTS, task, variant, seed) for seed in SEEDS]
    for folder in filter(Path.exists, folders):
        config = files.read_json(folder / "config.json")["config"]
        given = options(task, variant) | {"seed": [str(config["seed"])]}
        assert folder == folder_of(RESULTS, task, variant, config["seed"])
        guides |= {guide["fingerprint"] for guide in config["guides"]}
        recorded = RECORDED[config.get("inner")] | RECORDED[config.get("craft")]
        assert {name: given.pop(name) for name in (*INNER, "attack-copy") if name in given} == recorded
        for name in ("precision", "ema"):
            assert number(config.get(name)) == number(*given.pop(name, [None]))
        for option in ("threat", "steps", "relative-step", "hold-out", "epochs", "batch-size", "lr", "mse-weight"):
            if option in given:
                assert number(config["settings"][option.replace("-", "_")]) == number(*given.pop(option))
        for name, numbers in zip(("mean", "std"), TASKS[task].normalization, strict=True):
            assert given.pop(name, []) == list(map(str, numbers))
            assert all((guide.get(name) or []) == list(numbers) for guide in config["guides"])
        for name in ("data", "preprocessor", "images", "seed"):
            assert [str(config[name])] == given.pop(name)
        assert given.keys() == {"guides", "out"}
    assert len(guides) <= 1


def test_reached_missing_run_gives_no_row(tmp_path: Path) -> None:
    write_both(tmp_path, set(), set())
    (folder_of(tmp_path, TASK, EIGHTH, 2) / "autoattack" / "summary.json").unlink()
    assert not list(page.reached(tmp_path, TASK, EIGHTH_TARGET))


def test_verdicts_clean_only_ignore_attacks(tmp_path: Path) -> None:
    write_run(tmp_path, FAITHFUL, 0, broken={1, 2, 3}, gradients=1, n=10)
    folder = folder_of(tmp_path, TASK, FAITHFUL, 0) / "autoattack"
    assert page.formatted(page.verdicts(folder, clean_only=True)).startswith("90.0 [")
    assert page.formatted(page.verdicts(folder)).startswith("60.0 [")


@RUNS
def test_command_of_variants_differs_as_the_page_says(task: str, variant: str) -> None:
    ours, faithful = options(task, variant), options(task, FAITHFUL)
    differ = {name for name in ours | faithful if ours.get(name) != faithful.get(name)} - {"out"}
    fast = {"attack-copy", "precision"} if variant != FAITHFUL else set()
    eighth = {"epochs", *(name for name in INNER if name in ours)} if variant in protocol.EIGHTHS else set()
    (batch,) = faithful["batch-size"]
    smaller = dict.fromkeys(protocol.EIGHTHS[2:], "16") | {protocol.SMALLER: "8"}
    assert ours["batch-size"] == [smaller.get(variant, batch)]
    small = {"batch-size"} if smaller.get(variant, batch) != batch else set()
    wide = {"threat"} if variant in TASKS[task].training_threats else set()
    assert ("inner-attack" in ours) == (variant in protocol.EIGHTHS)
    assert differ == fast | eighth | small | wide


@pytest.mark.parametrize("document", ["no place", "<!-- a -->\n<!-- end -->\n<!-- a -->\n<!-- end -->\n"])
def test_filled_block_without_one_place_is_refused(document: str) -> None:
    with pytest.raises(checks.InputError, match="places for the block 'a', expected one"):
        pages.filled(document, {"a": "new\n"})


def test_filled_keeps_backslashes_of_a_block() -> None:
    document = "Before\n<!-- a -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    found = pages.filled(document, {"a": r"\1 new" + "\n"})
    assert found == "Before\n<!-- a -->\n\\1 new\n<!-- end -->\nafter <!-- end -->\n"


def test_renew_with_check_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text("<!-- a -->\nold\n<!-- end -->\n")
    assert not pages.renew(path, {"a": "new\n"}, check=True)
    assert "differ from its records" in capsys.readouterr().err
    assert "old" in path.read_text()
    assert not pages.renew(path, {"a": "new\n"}, check=False)
    assert pages.renew(path, {"a": "new\n"}, check=True)
