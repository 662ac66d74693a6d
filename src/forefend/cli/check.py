"""`forefend check`: the gate that catches robust accuracies which are not to be trusted."""

from __future__ import annotations

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Check, print what was found; 1 when a number is not to be trusted."""
    parser = Parser("check", "Try to catch masked gradients; the exit code is 1 when the number is not to be trusted.")
    parser.add_argument("run", nargs="?", type=str | None, help="the run's folder; none for bare classifiers")
    parser.add_argument(
        "--classifiers", "--classifier", nargs="+", type=str, default=[], help="more classifiers, seen or unseen"
    )
    parser.add_argument("--threat", type=str | None, help="such as Linf:8/255 (else the run's)")
    parser.add_argument("--images", type=int | None, default=200, help="stratified, seeded sample of the test set")
    parser.add_argument(
        "--records", nargs="+", type=str, default=[], help="where the number's records lie (else the run's folder)"
    )
    parser.add_argument(
        "--surrogates", nargs="+", type=str, default=[], help="other classifiers whose examples may transfer"
    )
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    parser.add_argument("--batch-size", type=int, default=250, help="images attacked at once")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the attacks' starts")
    parser.add_argument("--out", type=str | None, help="folder for check.json and the verdicts")
    parser.add_data(default=None)
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    from forefend.cli import check_work

    text, passed = check_work.run(options)
    if text:  # of several processes, one speaks
        print(text)
    return 0 if passed else 1
