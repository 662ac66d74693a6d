"""`forefend certify`: prove an l2 radius for each image by randomized smoothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Certify, print the table and save the certificates."""
    parser = Parser(
        "certify",
        "Prove an l2 radius for each image by randomized smoothing. A certificate is of the smoothed classifier and "
        "holds with probability at least 1 - alpha.",
    )
    parser.add_models()
    parser.add_argument("--sigma", type=float, default=0.25, help="standard deviation of the noise, in [0, 1] pixels")
    parser.add_argument("--n", type=int, default=1000, help="noisy copies that prove the radius (papers: 100000)")
    parser.add_argument("--n0", type=int, default=100, help="noisy copies that choose the class")
    parser.add_argument("--alpha", type=float, default=0.001, help="probability that a certificate is wrong")
    parser.add_argument("--radii", nargs="+", type=float, help="l2 radii of the table (else 0, 0.25 and 0.5)")
    parser.add_evaluation(out="certificates.jsonl")
    print(_run(parser.parse_args(arguments)))
    return 0


def _run(options: Any) -> str:
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.certification.certificate import RADII
    from forefend.evaluation.certification.randomized_smoothing import certify
    from forefend.evaluation.certification.smoothing_config import SmoothingConfig
    from forefend.runtime.distributed import process_group
    from forefend.runtime.formatting import counted
    from forefend.runtime.threads import choose_threads

    choose_threads()
    smoothing = SmoothingConfig(options.sigma, options.n, options.n0, options.alpha, options.seed)
    for radius in options.radii or []:
        smoothing.check_radius(radius)
    radii = options.radii or [radius for radius in RADII if radius < smoothing.largest_radius]
    images = resolve_data.evaluation_images(options)
    models, _ = resolve_models.evaluated_models(options, images)
    resolve_models.check_accuracy(models, options)
    resolve_models.move_to_device([model.network for model in models], options.device)
    names = resolve_models.joined_names(models)
    folder = resolve_models.output_folder(options, "certificates", names, f"sigma{options.sigma:g}", f"s{options.seed}")
    first = not process_group().rank
    if first:
        sizes = f"{counted(len(models), 'model')}, {counted(len(images), 'image')}"
        print(f"{sizes}, {options.n0 + options.n} noisy copies an image -> {folder}", flush=True)
    certificates = certify(models, images, **asdict(smoothing), folder=folder, batch_size=options.batch_size)
    return certificates.table(list(dict.fromkeys(radii))) if first else ""
