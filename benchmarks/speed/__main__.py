"""Measure the speed of attacks, training steps and evaluations on this machine, beside other libraries.

usage: PYTHONPATH=src:. python -m benchmarks.speed [--quick] [--benchmarks NAME ...]
"""

from __future__ import annotations

import sys

from forefend.checks import InputError
from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Measure, print the table and write `bench.json`; 0 is success, 2 is input that was refused."""
    try:
        return _measure(arguments)
    except InputError as error:
        print(f"benchmarks.speed: {error}", file=sys.stderr)
        return 2


def _measure(arguments: list[str]) -> int:
    parser = Parser(
        "bench",
        "Measure speed on this machine, beside other libraries. Every implementation has a process with one thread, "
        "and they take turns. Processor time counts. Every ratio is printed with its quartiles and with evidence that "
        "both implementations did the same work.",
    )
    parser.prog = "python -m benchmarks.speed"
    parser.add_argument("--quick", action="store_true", help="few points and rounds: three minutes on one core")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        type=str,
        default=[],
        help="attack, 'early exit', training, roofline, growth, memory, recipes (default: all)",
    )
    parser.add_argument("--rounds", type=int | None, help="measurements of each point (default: 5, or 3 with --quick)")
    parser.add_argument(
        "--environments", type=str, default=".venvs", help="folder that benchmarks/speed/environments.sh created"
    )
    parser.add_argument("--data-dir", type=str | None, help="folder of the data sets (default: FOREFEND_DATA or .data)")
    parser.add_argument("--out", type=str, default="runs/bench", help="folder for bench.json")
    options = parser.parse_args(arguments)
    from benchmarks.speed import runner

    print(runner.run(options))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
