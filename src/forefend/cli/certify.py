"""`forefend certify`: prove an l2 radius for each image by randomized smoothing."""

from __future__ import annotations

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Certify, print the table, leave certificates."""
    parser = Parser(
        "certify",
        "Prove an l2 radius for each image by randomized smoothing. Only this proves, and only for the smoothed "
        "classifier, in l2, with probability at least 1 - alpha; what evaluate reports is measured.",
    )
    parser.add_argument("run", nargs="?", type=str | None, help="the run's folder; none for bare classifiers")
    parser.add_argument(
        "--classifiers", "--classifier", nargs="+", type=str, default=[], help="more classifiers, seen or unseen"
    )
    parser.add_argument("--sigma", type=float, default=0.25, help="standard deviation of the noise, in [0, 1]-pixels")
    parser.add_argument("--samples", type=int, default=1000, help="noisy copies that prove the radius (papers: 100000)")
    parser.add_argument("--first", type=int, default=100, help="noisy copies that guess the class beforehand")
    parser.add_argument("--alpha", type=float, default=0.001, help="probability with which a certificate may be wrong")
    parser.add_argument(
        "--radii",
        nargs="+",
        type=float,
        help="l2 radii to count certified images at (else those of 0, 0.25 and 0.5 that the samples can reach)",
    )
    parser.add_argument("--images", type=int | None, help="stratified, seeded sample of the whole test set")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    parser.add_argument("--batch-size", type=int, default=250, help="noisy copies classified at once")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the noise")
    parser.add_argument("--out", type=str | None, help="folder for certificates.jsonl")
    parser.add_data(default=None)
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    from forefend.cli import certify_work

    print(certify_work.run(options))
    return 0
