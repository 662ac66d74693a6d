"""`forefend demo`: the whole story on real handwritten digits, in about a minute on two cores."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Run the demo and name the next three commands to try."""
    parser = Parser("demo", "A defense for real handwritten digits: three classifiers, two of them its guides.")
    parser.add_argument("--out", type=str, default="runs/demo", help="the run's folder")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    options = parser.parse_args(arguments)
    started, folder = time.monotonic(), Path(options.out)
    from forefend.cli import demo_work

    demo_work.run(folder, options.seed)
    print(f"{time.monotonic() - started:.0f} s; picture: {folder}/picture.png, records: {folder}/records.jsonl\nnext:")
    word = sys.argv[0] if Path(sys.argv[0]).name == "forefend" else "python -m forefend"
    print(f"  {word} evaluate {folder} --suite quick --threat Linf:0.15")
    print(f"  {word} train rtfe --data digits --guides mlp resnet20 --threat Linf:0.15 --epochs 20")
    print(f"  {word} recipes")
    return 0
