"""`forefend corruptions`: measure a run, or bare classifiers, on corrupted images."""

from __future__ import annotations

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Measure, print the tables, leave records and `corruptions.json`."""
    parser = Parser("corruptions", "Measure a run, or bare classifiers, on corrupted images, made here or published.")
    parser.add_argument("run", nargs="?", type=str | None, help="the run's folder; none for bare classifiers")
    parser.add_argument(
        "--classifiers", "--classifier", nargs="+", type=str, default=[], help="more classifiers, seen or unseen"
    )
    parser.add_argument(
        "--from", dest="published", type=str | None, help="folder of CIFAR-10-C, CIFAR-100-C, ImageNet-C"
    )
    parser.add_argument("--corruptions", nargs="+", type=str, default=[], help="such as fog snow (else all there are)")
    parser.add_argument("--severities", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="of 1 to 5")
    parser.add_argument("--images", type=int | None, help="stratified, seeded sample of the whole test set")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    parser.add_argument("--batch-size", type=int, default=250, help="images judged at once")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the corruptions")
    parser.add_argument("--out", type=str | None, help="folder for records.jsonl and corruptions.json")
    parser.add_data(default=None)
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    from forefend.cli import corruptions_work

    print(corruptions_work.run(options))
    return 0
