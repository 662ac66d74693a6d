"""`forefend compare`: compare the defense of a run with baselines at equal training compute."""

from __future__ import annotations

from functools import partial

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Train the baselines, attack all models, print the table and write the records."""
    parser = Parser(
        "compare",
        "Compare a run's defense with the classifier alone, JPEG, fewer bits, total variation, denoised smoothing and "
        "adversarial fine-tuning of the classifier itself, the trained ones at this run's training compute.",
    )
    parser.add_argument("run", type=str, help="folder of the run")
    parser.add_argument("--classifier", type=str | None, help="name of the guide (else the run's first)")
    parser.add_argument("--suite", type=str, default="quick", help="as for evaluate: quick, standard, curve, …")
    parser.add_argument("--threat", type=str | None, help="such as Linf:8/255 (else the run's)")
    parser.add_argument("--denoiser", type=str, default="dncnn", help="architecture for denoised smoothing")
    parser.add_argument("--sigma", type=float, default=0.25, help="standard deviation of its noise")
    parser.add_argument("--copies", type=int, default=8, help="noisy copies that it averages")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of adversarial fine-tuning")
    parser.add_evaluation(out="records, compare.json and compare.md")
    options = parser.parse_args(arguments)
    from forefend.cli.resolve_data import evaluation_images, split_loader
    from forefend.evaluation.comparison.compare import compare
    from forefend.runtime.threads import choose_threads

    choose_threads()
    images = evaluation_images(options)
    comparison = compare(
        options.run,
        images,
        suite=options.suite,
        threat=options.threat,
        classifier=options.classifier,
        denoiser=options.denoiser,
        sigma=options.sigma,
        copies=options.copies,
        lr=options.lr,
        train_data=split_loader(options)("train"),
        folder=options.out,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        allow_weak=options.allow_weak_classifier,
        runs=options.runs,
        log=partial(print, flush=True),
    )
    print(comparison)
    return 0
