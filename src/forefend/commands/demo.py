"""`forefend demo`: the whole story on real handwritten digits, in about a minute on two cores."""

from __future__ import annotations

import time
from pathlib import Path

from .parser import Parser


def main(arguments: list[str]) -> int:
    """Run the demo and name the next three commands to try."""
    parser = Parser("demo", "A defence for real handwritten digits: three classifiers, two of them its guides.")
    parser.add_argument("--out", type=str, default="runs/demo", help="the run's folder")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    options = parser.parse_args(arguments)
    started, folder = time.monotonic(), Path(options.out)
    from ..jobs import demo

    demo.run(folder, options.seed)
    print(f"{time.monotonic() - started:.0f} s; picture: {folder}/picture.png, records: {folder}/records.jsonl\nnext:")
    print(f"  forefend evaluate {folder} --suite quick --threat Linf:0.15")
    print("  forefend train rtfe --data fashion-mnist --guides cnn resnet20 --threat Linf:0.1 --epochs 5")
    print("  forefend recipes")
    return 0
