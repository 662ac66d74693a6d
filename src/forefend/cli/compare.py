"""`forefend compare`: a run's defense beside its rivals, at equal training compute."""

from __future__ import annotations

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Train the rivals, attack all, print the table and who wins, leave records."""
    parser = Parser(
        "compare",
        "Compare a run's defense with the classifier alone, JPEG, fewer bits, total variation, denoised smoothing and "
        "adversarial fine-tuning of the classifier itself, the trained ones at this run's training compute.",
    )
    parser.add_argument("run", type=str, help="the run's folder")
    parser.add_argument("--classifier", type=str | None, help="which of the run's guides (else the first)")
    parser.add_argument("--suite", type=str, default="quick", help="as for evaluate: quick, standard, curve, …")
    parser.add_argument("--threat", type=str | None, help="such as Linf:8/255 (else the run's)")
    parser.add_argument("--denoiser", type=str, default="dncnn", help="architecture for denoised smoothing")
    parser.add_argument("--sigma", type=float, default=0.25, help="of its noise, in [0, 1]-pixels")
    parser.add_argument("--copies", type=int, default=8, help="noisy copies that it averages")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of adversarial fine-tuning")
    parser.add_argument("--images", type=int | None, help="stratified, seeded sample of the whole test set")
    parser.add_argument("--batch-size", type=int, default=250, help="images attacked at once")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the attacks' starts")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    parser.add_argument("--out", type=str | None, help="folder for records, compare.json and compare.md")
    parser.add_data(default=None)
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    from forefend.cli import compare_work

    print(compare_work.run(options))
    return 0
