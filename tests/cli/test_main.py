from __future__ import annotations

import importlib.util
import io
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path

import pytest
from helpers.command_line import done, files, forefend, guide, refused

from forefend.checks import InputError
from forefend.cli.doctor import PACKAGES
from forefend.cli.main import COMMANDS, main
from forefend.cli.parser import Parser
from forefend.evaluation.results import Result, save
from forefend.recipes import RECIPES
from forefend.report import tables
from forefend.runtime.run_folder import Run

ROOT = Path(__file__).parents[2]
PREPROCESSORS = {
    "rtfe",
    "jat",
    "jatp",
    "jatp-prime",
    "aaa",
    "robustifier",
    "hgd",
    "ape-gan",
    "nrp",
    "denoised-smoothing",
}
NAMES = PREPROCESSORS | {"adversarial", "trades", "mart", "mma", "mma-simple", "transfer", "natural"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "forefend", *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_help_takes_less_than_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = shell("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert answer.returncode == 0
    assert all(name in answer.stdout for name in COMMANDS)


def test_no_help_needs_torch(python: Callable[..., str]) -> None:
    program = """
import contextlib, io, sys
from forefend.cli.main import COMMANDS, main
from forefend.cli.parser import Parser
for words in [["--help"], [], *([name, "--help"] for name in COMMANDS if name != "train")]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(words)
    assert out.getvalue().startswith("usage: forefend"), words
print("torch" in sys.modules, "jsonargparse" in sys.modules)
"""
    assert python(program) == "False True"


def test_version_is_that_of_the_package() -> None:
    assert done("--version") == f"forefend {metadata.version('forefend')}\n"


def test_train_help_shows_options_of_recipe() -> None:
    out = done("train rtfe --help")
    assert "--relative-step" in out
    assert "Madry" in out
    assert "--guides" in out
    assert "--guides" not in done("train natural --help")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trian", "command called 'trian': did you mean 'train'?"),
        ("--versoin", "option called '--versoin': did you mean '--version'?"),
        ("recipes rtef", "recipe called 'rtef': did you mean 'rtfe'?"),
        ("train rtef", "recipe called 'rtef': did you mean 'rtfe'?"),
        ("train rtfe --epohcs 1", "option --epohcs in forefend train rtfe: did you mean --epochs?"),
        ("evaluate --epss 0.1", "did you mean --threat Linf:8/255?"),
        ("evaluate --modle mlp", "did you mean --classifiers?"),
        ("recipes --jsn", "did you mean --json?"),
        ("evaluate --suite quik", "suite called 'quik': did you mean 'quick'?"),
        ("train rtfe --data digits --guides cn", "architecture called 'cn': did you mean 'cnn'?"),
        ("evaluate --data digits --classifiers cn", "architecture called 'cn': did you mean 'cnn'?"),
        ("train natural --data digits --classifier lenet", "architecture called 'lenet': did you mean 'lenet5'?"),
        ("train transfer --data digits --source cn", "architecture called 'cn': did you mean 'cnn'?"),
        ("train natural --data digit", "data set called 'digit': did you mean 'digits'?"),
        (
            "train rtfe --data digits --preprocessor narow-unet --guides GUIDE",
            "architecture called 'narow-unet': did you mean 'na",
        ),
        (
            "train ape-gan --data digits --discriminator ape-gn --guides GUIDE",
            "called 'ape-gn': did you mean 'ape-gan'?",
        ),
        ("train rtfe --data digits --policy evry", "guide policy called 'evry': did you mean 'every'?"),
        (
            "train rtfe --data digits --huber huber_men",
            "loss of two outputs called 'huber_men': did you mean 'huber_mean'?",
        ),
        ("train natural --data digits --device gpu", "device called 'gpu': did you mean 'cpu'?"),
    ],
)
def test_main_with_wrong_name_suggests_nearest(line: str, words: str, here: Path) -> None:
    assert words in refused(line.replace("GUIDE", str(guide()) if "GUIDE" in line else ""))
    assert files(here) == []


def test_shell_with_wrong_name_prints_one_line(here: Path) -> None:
    answer = shell("train", "rtef")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "forefend: There is no recipe called 'rtef': did you mean 'rtfe'?\n"
    assert shell().returncode == 2


def test_shell_into_head_prints_no_traceback() -> None:
    program = f"{sys.executable} -m forefend recipes | head -1"
    answer = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert (answer.stderr, answer.stdout.count("\n")) == ("", 1)


def test_main_with_unwritable_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (Path.cwd() / "taken").write_text("mine")
    train = "train natural --data digits --images 20 --epochs 1 --out"
    assert "taken holds files but no run" in refused(f"{train} taken")
    assert refused(f"{train} taken/x") == "taken/x cannot be created (Not a directory): choose another folder."
    for line in (train, "corruptions --classifiers mlp@random --data digits --images 20 --allow-weak-classifier --out"):
        assert "/proc/x cannot be created" in refused(f"{line} /proc/x")
    assert (Path.cwd() / "taken").read_text() == "mine"
    monkeypatch.setattr("forefend.cli.recipes.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # an unexpected error keeps its traceback
        main(["recipes", "--json"])


def test_main_without_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said) if isinstance(said, str) else said

    monkeypatch.setattr("forefend.cli.recipes.json.dumps", fail)
    said: object = MemoryError()
    assert "Memory ran out: give a smaller --batch-size" in refused("recipes --json")
    said = ImportError("x.so: failed to map segment", name="x")
    assert "x cannot be loaded (x.so: failed to map segment): free memory" in refused("recipes --json")
    said = "CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated memory"
    words = "Memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB.): give a smaller --batch-size."
    assert refused("recipes --json") == words
    said = "shapes do not fit"
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        refused("recipes --json")


def test_train_from_printed_config_gives_same_run(here: Path) -> None:
    chosen = f"--data digits --guides {guide()} --images 60 --epochs 1 --steps 2 --milestones 0.25 0.5"
    chosen += " --threat Linf:0.1 --lr 0.02"
    yaml = done(f"train rtfe {chosen} --print_config")
    (here / "options.yaml").write_text(yaml)
    assert done("train rtfe --config options.yaml --print_config") == yaml
    done(f"train rtfe {chosen} --out typed")
    done("train rtfe --config options.yaml --out read")
    assert Run(here / "read").config == Run(here / "typed").config
    assert Run(here / "read").config["settings"]["milestones"] == [0.25, 0.5]


def test_train_option_overrides_config_file(here: Path) -> None:
    (here / "options.yaml").write_text("lr: 0.5\nepochs: 7\nmilestones: [0.1]\n")
    shown = done("train rtfe --config options.yaml --epochs 3 --print_config")
    assert re.search(r"^epochs: 3$", shown, re.M)
    assert re.search(r"^lr: 0.5$", shown, re.M)
    assert re.search(r"^milestones:\n- 0.1$", shown, re.M)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epohcs: 1\n", "no option --epohcs in forefend train rtfe: did you mean --epochs?"),
        ("lr: fast\n", "--lr does not accept 'fast'"),
        ("lr: [1\n", "Problems parsing config"),
        ("lr: 0\n", "lr is 0, expected a finite number above 0"),
    ],
)
def test_train_with_wrong_config_file_is_refused(text: str, words: str, here: Path) -> None:
    (here / "options.yaml").write_text(text)
    assert words in refused("train rtfe --data digits --config options.yaml")
    assert "File does not exist" in refused("train rtfe --config nowhere.yaml")


def test_recipes_of_a_name_prints_that_one() -> None:
    out = done("recipes rtfe")
    assert out.startswith(f"rtfe: {RECIPES['rtfe'].purpose()}\n    {RECIPES['rtfe'].source()}\n")
    assert "networks: preprocessor, guides\n" in out
    assert re.search(r"^    relative_step +0\.\d+ ", out, re.MULTILINE)
    assert "jatp" not in out
    assert list(json.loads(done("recipes mart trades --json"))) == ["mart", "trades"]


def test_train_into_a_run_names_an_unknown_architecture(here: Path) -> None:
    gan = f"train ape-gan --data digits --guides {guide()} --images 40 --epochs 1 --out run"
    done(gan)
    for role in ("preprocessor", "discriminator"):
        assert "architecture called 'cn': " in refused(f"{gan} --{role} cn")
    natural = "train natural --data digits --images 40 --epochs 1 --out plain"
    done(natural)
    assert "architecture called 'lenet': did" in refused(f"{natural} --classifier lenet")


def test_recipes_json_has_every_hyperparameter() -> None:
    listing = json.loads(done("recipes --json"))
    assert set(listing) == set(RECIPES)
    for name, entry in listing.items():
        assert len(entry["purpose"]) > 20
        assert set(entry["settings"]) == {f.name for f in fields(RECIPES[name])}
        assert all(len(s["meaning"]) > 10 and "default" in s for s in entry["settings"].values()), name


def test_recipes_prints_names_purposes_and_fields() -> None:
    out = done("recipes")
    for name, entry in json.loads(done("recipes --json")).items():
        assert f"\n{name}: {entry['purpose']}\n" in f"\n{out}"
    assert "    relative_step " in out


def test_recipes_include_the_papers() -> None:
    assert set(RECIPES) >= NAMES


def test_doctor_finds_all_packages() -> None:
    out = done("doctor")
    assert all(name in out for name in PACKAGES)
    assert "pip install" not in out
    assert "threads 1" in out


@pytest.mark.parametrize(("module", "line", "code"), [("scipy", "data", 0), ("sklearn", "demo", 0), ("numpy", "", 1)])
def test_doctor_without_package_prints_how_to_install(
    module: str, line: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    answer = forefend("doctor")
    assert answer.code == code
    missing = [row for row in answer.out.splitlines() if "pip install" in row]
    assert len(missing) == 1
    assert (f"pip install 'forefend[{line}]'" if line else "pip install forefend ") in missing[0]


def cell(accuracy: float) -> Result:
    return Result("cnn", True, True, "PGD-20", "Linf", 0.1, 10, accuracy, 0.0, 1.0, accuracy, 0)


def test_report_prints_table_of_each_folder(here: Path) -> None:
    save(here / "a", [cell(0.5)])
    save(here / "b", [cell(0.7)])
    out = done("report a b")
    assert "50.0 [0.0" in out
    assert "70.0 [0.0" in out
    assert "| cnn (guide) | yes | 70.0" in done("report b --markdown")
    assert "Nothing to report" in refused("report")
    assert "There is no nowhere/summary.json" in refused("report nowhere")
    assert "There is no document nowhere.md" in refused("report --readme nowhere.md")


def test_report_updates_only_tables_of_document(here: Path) -> None:
    document = here / "doc.md"
    document.write_text("before\n<!-- table a -->\nold\n<!-- end -->\nafter ε\n", encoding="utf-8")
    assert "a/summary.json" in refused("report --readme doc.md")
    assert "old" in document.read_text()
    save(here / "a", [cell(0.5)])
    done("report --readme doc.md")
    once = document.read_text(encoding="utf-8")
    assert once.startswith("before\n<!-- table a -->\n| classifier")
    assert once.endswith("<!-- end -->\nafter ε\n")
    assert "old" not in once
    assert "| 50.0 [0.0" in once
    done("report --readme doc.md")
    assert document.read_text(encoding="utf-8") == once


def test_readme_tables_match_results() -> None:
    document = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = re.findall(r"<!-- table (\S+) -->", document)
    if not folders or not all((ROOT / folder / "summary.json").exists() for folder in folders):
        pytest.skip("README.md has no table yet, or not every table has its results")
    assert tables.renewed(document, ROOT) == document


@pytest.mark.parametrize("line", ["recipes", "", "--version", "train natural --help", "nothing 2>&1"])
def test_shell_into_closed_pipe_prints_no_traceback(line: str) -> None:
    program = f"{sys.executable} -m forefend {line} | true"
    answer = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr
    assert "Exception ignored" not in answer.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "cp932"])
def test_main_on_narrow_console_prints_similar_ascii(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    save(Path("a"), [replace(cell(0.5), attack="RTFE step 1.25ε ☃")])
    assert main(["report", "a"]) == 0
    text = written.getvalue().decode(encoding)
    assert "50.0 [0.0" in text
    assert "RTFE step 1.25" + ("ε" if encoding in ("cp437", "cp932") else "eps") + " ?" in text


@pytest.mark.parametrize(
    ("words", "threat"),
    [("--eps 8/255", "Linf:8/255"), ("--norm L2 --eps=0.5", "L2:0.5"), ("--epsilon 0.1 --norm l_inf", "Linf:0.1")],
)
def test_parser_accepts_norm_and_eps_as_threat(words: str, threat: str) -> None:
    assert f"threat: {threat}\n" in done(f"train adversarial {words} --print_config")


def test_parser_with_norm_alone_or_both_forms_is_refused() -> None:
    for words in ("--norm L2", "--eps 0.1 --threat Linf:0.1"):
        assert "--threat Linf:8/255" in refused(f"train adversarial --data digits {words}")


def test_parser_accepts_other_spellings_of_values() -> None:
    parser = Parser("evaluate", "Measure.")
    parser.add_data()
    parser.add_argument("--suite", type=str)
    read = parser.parse_args(["--data", "CIFAR_10", "--suite", "AutoAttack"])
    assert (read.data, read.suite) == ("cifar-10", "standard")
    Path("cifar10").mkdir()
    assert parser.parse_args(["--data", "cifar10"]).data == "cifar10"  # an existing folder


@pytest.mark.parametrize(
    ("line", "words"),
    [("evaluate --attack pgd", "--suite"), ("train natural --dataset x", "--data"), ("evaluate --model x", "--cla")],
)
def test_parser_with_option_of_other_packages_suggests_ours(line: str, words: str) -> None:
    assert f"did you mean {words}" in refused(line)


def test_main_turns_python_arguments_into_options(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "say allow_weak=True, mean=0, size=224, download=True or monitor=Monitor(fall_back); epochs=3 stays"

    def fail(*_: object, **__: object) -> None:
        raise InputError(said)

    monkeypatch.setattr("forefend.cli.recipes.json.dumps", fail)
    assert refused("recipes --json") == (
        "say --allow-weak-classifier, --mean 0, --size 224, --download or --on-overfitting fall-back; epochs=3 stays"
    )
