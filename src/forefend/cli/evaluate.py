"""`forefend evaluate`: measure a run, or bare classifiers, under a named suite of attacks."""

from __future__ import annotations

from typing import Literal

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Evaluate, print the table, leave records and summary."""
    parser = Parser("evaluate", "Measure a run, or bare classifiers, under a suite of attacks.")
    parser.add_argument("run", nargs="?", type=str | None, help="the run's folder; none for bare classifiers")
    parser.add_argument(
        "--classifiers", "--classifier", nargs="+", type=str, default=[], help="more classifiers, seen or unseen"
    )
    parser.add_argument(
        "--suite",
        type=str,
        default="quick",
        help="quick, standard (AutoAttack and black-box), cascade (AutoAttack on what cheap attacks leave), "
        "randomized, black-box, curve, or a paper's own: rtfe, rtfe-strong-weak, jatp, aaa, transfer, robustifier",
    )
    parser.add_argument(
        "--surrogates", nargs="+", type=str, default=[], help="other classifiers whose examples may transfer"
    )
    parser.add_argument(
        "--threat", nargs="+", type=str, help="such as Linf:8/255, several for a curve (else the run's)"
    )
    parser.add_argument(
        "--precision",
        type=Literal["fp32", "bf16"] | None,
        help="attack a prepared copy of this precision until an image is lost, or with AutoAttack one in fp32; the "
        "classifier itself still decides",
    )
    parser.add_argument("--images", type=int | None, help="stratified, seeded sample of the whole test set")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    parser.add_argument("--batch-size", type=int, default=250, help="images attacked at once")
    parser.add_argument(
        "--processes", type=int | None, help="share the images among so many (else as many as cores are free)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the attacks' starts")
    parser.add_argument("--out", type=str | None, help="folder for records.jsonl and summary.json")
    parser.add_data(default=None)
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    options.words = ["evaluate", *arguments]
    from forefend.cli import evaluate_work

    print(evaluate_work.run(options))
    return 0
