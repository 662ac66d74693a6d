"""`forefend bench`: how fast are attacks, training steps and verdicts, beside others', on this machine?"""

from __future__ import annotations

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Measure, print the table, leave bench.json."""
    parser = Parser(
        "bench",
        "Measure speed on this machine: ours beside others', taking turns, one thread each, by the processor's own "
        "time. Every ratio comes with its quartiles and with what shows that both did the same work.",
    )
    parser.add_argument("--quick", action="store_true", help="few points and rounds: three minutes on one core")
    parser.add_argument(
        "--questions",
        nargs="+",
        type=str,
        default=[],
        help="attack, 'early exit', verdict, training, roofline, growth, memory, recipes (else all)",
    )
    parser.add_argument("--rounds", type=int | None, help="how often each point is measured (else 5, or 3 if quick)")
    parser.add_argument("--peers", type=str, default=".venvs", help="where benchmarks/speed/environments.sh put them")
    parser.add_argument("--data-dir", type=str | None, help="where data sets lie (else FOREFEND_DATA, else .data)")
    parser.add_argument("--out", type=str, default="runs/bench", help="folder for bench.json")
    options = parser.parse_args(arguments)
    from benchmarks.speed import runner

    print(runner.run(options))
    return 0
