"""Measure this service beside others, everything on one machine in one run.

    python -m bench                               everything, as docs/benchmarks.md has it
    python -m bench --quick                       smaller numbers, one round, no curves
    python -m bench --only latency,saturated      some measures
    python -m bench --systems ours,naive          on some systems
    python -m bench --set saturated_seconds=5     other numbers, see bench/scale.py

Prints tables, and writes results.json and plots as SVG into --out.
"""

import argparse
import itertools
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from bench.load.process import LoadError
from bench.measures import MEASURES, Measure
from bench.postgres import Postgres, postgres
from bench.report import Result, about, told
from bench.scale import FULL, QUICK, Scale
from bench.systems import SYSTEMS, System

Named = TypeVar("Named", Measure, System)


def main(arguments: Sequence[str] | None = None) -> Result:
    """Run what the command line asks for."""
    options = _options(arguments)
    scale = (QUICK if options.quick else FULL).but(options.set)
    sensible = [one for one in MEASURES if one.in_quick or not options.quick]
    measures = _chosen(MEASURES if options.only else sensible, options.only)
    systems = _chosen(SYSTEMS, options.systems)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    used = [one for one in systems if any(one.name in measure.systems for measure in measures)]
    skipped = {one.name: why for one in used if (why := one.missing()) is not None}
    for name, why in skipped.items():
        _say(f"skipping {name}: {why}")
    there = [one for one in used if one.name not in skipped]
    command = shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    with postgres() as server:
        result = Result({**about(command, there, server.version), "scale": vars(scale)}, skipped=skipped)
        _measure(result, server, measures, there, scale, path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print("\n" + told(result, measures, there))
    result.write(path)
    for written in [path, *_plotted(result, options.out)]:
        _say(f"written: {written}")
    return result


def _plotted(result: Result, folder: Path) -> list[Path]:
    try:
        from bench.plots import draw  # noqa: PLC0415 - plots are an extra
    except ImportError:
        _say("no plots: pip install -e '.[bench]'")
        return []
    return draw(result, folder)


def _measure(
    result: Result,
    server: Postgres,
    measures: Sequence[Measure],
    systems: Sequence[System],
    scale: Scale,
    path: Path,
) -> None:
    """Every measure in turn; in each round every system once. What there is by then is written each time."""
    for measure in measures:
        rounds = min(scale.rounds, measure.rounds or scale.rounds)
        mine = [one for name in measure.systems for one in systems if one.name == name]
        for number, system in itertools.product(range(rounds), mine):
            began = time.monotonic()
            try:
                figures = measure.run(server, system, scale)
            except (LoadError, ArithmeticError, OSError, subprocess.SubprocessError) as error:
                result.skipped[f"{measure.name} on {system.name}"] = str(error)
                _say(f"{measure.name} on {system.name} failed: {error}")
                continue
            result.add(measure, system, figures)
            result.write(path)
            values = ", ".join(f"{name} {value:.4g}" for name, value in figures.values.items())
            took = time.monotonic() - began
            _say(f"{measure.name} {number + 1}/{rounds} {system.name:12} {values}  [{took:.0f} s]")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three to four minutes, one round")
    parser.add_argument("--only", help=f"of {', '.join(one.name for one in MEASURES)}")
    parser.add_argument("--systems", help=f"of {', '.join(one.name for one in SYSTEMS)}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="see bench/scale.py")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="default: bench-results")
    return parser.parse_args(arguments)


def _chosen(known: Sequence[Named], names: str | None) -> list[Named]:
    if names is None:
        return list(known)
    wanted = names.split(",")
    if unknown := set(wanted) - {one.name for one in known}:
        sys.exit(
            f"there is no {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in known)}"
        )
    return [one for one in known if one.name in wanted]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
