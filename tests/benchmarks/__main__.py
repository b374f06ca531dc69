"""All benchmarks in one command.

    python -m tests.benchmarks                     # everything, about a quarter of an hour
    python -m tests.benchmarks --only requests http --size quick
    python -m tests.benchmarks --check             # exit 1 where a goal is missed
    python -m tests.benchmarks --json run.json --plot chart.svg
    python -m tests.benchmarks --read run.json --plot chart.svg    # draw a run again

Only ratios mean anything, and only within one run: microseconds are those of the machine that is described above them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks import chart, goals, machine, readme
from tests.benchmarks.report import Report
from tests.benchmarks.runner import BENCHMARKS, run
from tests.benchmarks.sizes import SIZES


def show(report: Report) -> None:
    for table in report.tables:
        print(f"\n### {table.title}\n\n{table}")
    for sentence in report.missing:
        print(f"\nNot measured: {sentence}")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 if ``--check`` was given and a goal was not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measures, in ratios of one run.")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--size", choices=SIZES, default="full", help="quick: a first look; smoke: does it run?")
    parser.add_argument("--quick", action="store_const", const="quick", dest="size", help="the same as --size quick")
    parser.add_argument("--rows", type=int, help="of the large table; 1000000 in full size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: show what --json wrote")
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed or could not be measured")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the chart; needs the benchmark requests")
    parser.add_argument("--readme", type=Path, metavar="FILE.md", help="write the table into this README")
    options = parser.parse_args(arguments)
    described, reports = read(options.read) if options.read else (machine.describe(), {})
    for name, value in described.items():
        print(f"{name}: {value}")
    if options.read is None:
        if machine.load() > machine.QUIET:
            print("Other programs are running: ratios are rough, and a missed goal may be their fault.")
        size = SIZES[options.size]
        if options.rows is not None:
            size = replace(size, rows=options.rows)
        for name in options.only or BENCHMARKS:
            print(f"\n## {name}")
            began = time.monotonic()
            reports[name] = run(name, size)
            show(reports[name])
            print(f"\n({time.monotonic() - began:.0f} s)")
        described["load at the end"] = f"{machine.load():.2f}"
    else:
        reports = {name: report for name, report in reports.items() if not options.only or name in options.only}
        for name, report in reports.items():
            print(f"\n## {name}")
            show(report)
    judged = goals.judge(reports)
    print(f"\n## Goals\n\n{goals.table(judged)}")
    if options.json:
        kept = {"machine": described, "reports": {name: report.as_json() for name, report in reports.items()}}
        kept["goals"] = [
            {
                "benchmark": goal.benchmark,
                "goal": goal.value,
                "limit": goal.now(),
                "measured": value,
                "verdict": verdict,
            }
            for goal, value, verdict in judged
        ]
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if options.plot:
        options.plot.write_text(chart.draw(reports, described))
    if options.readme:
        options.readme.write_text(readme.filled(options.readme.read_text(), reports, described))
    if not options.check:
        return 0
    failed = [f"{goal.benchmark}: {goal.value}" for goal, _, verdict in judged if verdict != "met" and not goal.told]
    print(
        f"\n{len(failed)} of {len(judged)} goals are not met: {'; '.join(failed)}."
        if failed
        else "\nAll goals are met."
    )
    return 1 if failed else 0


def read(path: Path) -> tuple[dict[str, str], dict[str, Report]]:
    """What ``--json`` wrote."""
    try:
        kept: Any = json.loads(path.read_text())
        return kept["machine"], {name: Report.from_json(report) for name, report in kept["reports"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: give a file that --json has written ({type(error).__name__}).")


if __name__ == "__main__":
    sys.exit(main())
