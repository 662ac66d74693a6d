"""`forefend export`: a defense as an ONNX or .pt2 file, alone or with a classifier, or as a folder to give away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from forefend.checks import InputError
from forefend.cli.parser import Parser

if TYPE_CHECKING:
    from forefend.data import ImageDataset
    from forefend.evaluation.evaluated_model import EvaluatedModel
    from forefend.models.export import Exported
    from forefend.threat_models.base import ThreatModel

CALIBRATION = 200  # training images on which the scales of int8 are found


def main(arguments: list[str]) -> int:
    """Export the defense, compare it with the original on test images, and write it."""
    parser = Parser("export", "Write a defense as a file for other programs, or as a folder to give away.")
    parser.add_argument("run", type=str, help="folder of a run or of a defense, or hf:OWNER/NAME")
    parser.add_argument("--to", type=str | None, help="a file .onnx or .pt2, or a new folder with a model card")
    parser.add_argument("--triton", type=str | None, help="folder of a model of the Triton inference server")
    parser.add_argument("--classifier", type=str | None, help="classifier to export with the defense, in files")
    parser.add_argument("--int8", action="store_true", help="write int8 weights, and measure them beside float32")
    parser.add_argument(
        "--threat", nargs="+", type=str, help="threat models in which int8 is attacked (else the run's)"
    )
    parser.add_argument("--license", type=str, default="", help="SPDX name of the license of the weights, in a folder")
    parser.add_argument("--images", type=int | None, default=200, help="test images on which outputs are compared")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
    parser.add_data()
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    if not (options.to or options.triton):
        raise InputError("Nothing to write: give --to with a file .onnx or .pt2 or a folder, or --triton.")
    suffix = Path(options.to).suffix if options.to else ""
    if suffix and suffix not in (".onnx", ".pt2"):
        raise InputError(f"--to is {options.to}, expected a file .onnx or .pt2, or a folder.")
    is_folder = bool(options.to) and not suffix
    if options.int8 and (suffix != ".onnx" or not options.classifier):
        raise InputError(
            "int8 changes answers, which are measured with a classifier: give --to FILE.onnx --classifier."
        )
    if is_folder and (options.classifier or options.triton):
        raise InputError(f"{options.to} is a folder, which holds the defense alone: give a file .onnx or .pt2.")
    _write_folder(options) if is_folder else _write_files(options, suffix)
    return 0


def _write_folder(options: Any) -> None:
    from forefend.models.defense import load
    from forefend.report.measured import measured_in
    from forefend.runtime.formatting import counted

    defense = load(options.run, download=options.download)
    found = measured_in(defense, Path(options.run))
    defense.save_pretrained(options.to, measured=found, license=options.license)
    source = counted(len(found), "evaluation")
    print(f"{options.to}: weights, cards and the digest of every file; accuracies from {source}")


def _write_files(options: Any, suffix: str) -> None:
    import torch

    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.evaluated_model import EvaluatedModel
    from forefend.evaluation.model_checks import check_defense, check_model
    from forefend.models.defended import Defended
    from forefend.models.defense import load
    from forefend.models.export import exported
    from forefend.runtime.threads import choose_threads

    choose_threads()
    defense = load(options.run, download=options.download)
    if options.run.startswith("hf:"):
        options.run = None
    options.data = options.data or resolve_data.run_config(options).get("data") or defense.card.data or None
    images = resolve_data.evaluation_images(options)
    check_defense(defense, images)
    network: torch.nn.Module = defense
    if options.classifier:
        named = resolve_models.named_classifier(options, options.classifier)
        check_model(named.network, images, named.name)
        network = Defended(defense, named.network)
    x, _, _ = images.batch(torch.arange(len(images)))
    done = {kind: exported(network, x, kind, logits=bool(options.classifier)) for kind in _kinds(options, suffix)}
    if options.int8:
        threats = resolve_models.given_threats(options.threat, defense.card.threat)
        model = EvaluatedModel(named.name, network, defended=True, seen=defense.has_seen(named.network))
        done[".onnx"] = _int8(options, model, images, threats, done[".onnx"])
    if suffix:
        done[suffix].save(Path(options.to))
        print(f"{options.to}: {done[suffix]}")
    if options.triton:
        done[".onnx"].save_triton(Path(options.triton))
        print(f"{options.triton}: {done['.onnx']}")


def _int8(
    options: Any, model: EvaluatedModel, images: ImageDataset, threats: Sequence[ThreatModel], original: Exported
) -> Exported:
    """Quantize, measure, and write the records and the README into the folder beside the file."""
    import torch

    from forefend import data
    from forefend.cli import resolve_data
    from forefend.evaluation.int8_robustness import int8_robustness
    from forefend.models.quantization import quantized
    from forefend.report.int8_card import int8_card
    from forefend.runtime.files import write

    train = data.sample(resolve_data.split_loader(options)("train"), CALIBRATION, options.seed)
    x, calibration = (split.batch(torch.arange(len(split)))[0] for split in (images, train))
    found = quantized(original, x, calibration)
    path = Path(options.to)
    folder = path.with_name(f"{path.stem}-int8")
    with TemporaryDirectory() as place:
        int8 = Path(place, path.name)
        found.save(int8)
        results = int8_robustness(model, int8, images, threats, folder=folder, seed=options.seed)
    words = f"{len(train)} training images of {train.name}"
    write(folder / "README.md", int8_card(path, found, words, folder).encode())
    print(f"{results}\n{folder}: README.md with these accuracies, and their records")
    return found


def _kinds(options: Any, suffix: str) -> list[str]:
    """The forms to export, before any is written."""
    return list(dict.fromkeys(([suffix] if suffix else []) + ([".onnx"] if options.triton else [])))
