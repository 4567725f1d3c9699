"""The result of a run: as JSON, and as tables for a terminal and for Markdown."""

import json
import math
import os
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from bench.measures import Figures, Measure, Row
from bench.systems import System

LIBRARIES = ("uvicorn", "uvloop", "httptools", "websockets", "asyncpg", "fastapi", "sqlalchemy")


@dataclass
class Result:
    """Everything that was measured: by measure, then by `SYSTEM.NAME`, the figure of each round."""

    about: dict[str, object]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[list[tuple[float, float]]]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """By name, why not."""

    def add(self, measure: Measure, system: System, figures: Figures) -> None:
        """Note what a round came to."""
        mine = self.figures.setdefault(measure.name, {})
        for name, value in figures.values.items():
            mine.setdefault(f"{system.name}.{name}", []).append(value)
        curves = self.curves.setdefault(measure.name, {})
        for name, points in figures.curves.items():
            curves.setdefault(f"{system.name}.{name}", []).append(points)

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def about(command: str, systems: Sequence[System], postgresql: str) -> dict[str, object]:
    """Which machine, which versions, when and how."""
    versions = {"python": sys.version.split()[0], "postgresql": postgresql}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    for system in systems:
        versions |= system.versions()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "processors": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "memory GiB": round(psutil.virtual_memory().total / (1 << 30), 1),
            "load before": [round(one, 2) for one in os.getloadavg()],
        },
        "versions": versions,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def summary(result: Result, measures: Sequence[Measure]) -> list[list[str]]:
    """The table of the promises: what, ours, beside, ratio, reach, further, how far."""
    lines = [["measure", "ours", "beside", "ratio", "reach", "further", ""]]
    for measure in measures:
        figures = result.figures.get(measure.name, {})
        scale = result.about["scale"]
        assert isinstance(scale, dict)
        lines += [
            [row.title.format(**scale), *_line(row, figures)] for row in measure.rows if row.figure in figures
        ]
    return lines


def _line(row: Row, figures: dict[str, list[float]]) -> list[str]:
    unit = row.figure.partition(".")[2].rpartition(" ")[2]
    ours = figures[row.figure]
    beside = figures.get(row.beside or "")
    if row.beside is not None and beside is None:
        return [f"{_text(statistics.median(ours))} {unit}", "not measured", "", "", "", ""]
    ratios = ours if beside is None else [a / b for a, b in zip(ours, beside, strict=False)]
    value = statistics.median(ratios)
    sign = "x" if beside is not None else ""
    return [
        f"{_text(statistics.median(ours))} {unit}",
        "" if beside is None else _text(statistics.median(beside)),
        "" if beside is None else f"{value:.2f} x",
        "" if row.reach is None else f"{row.reach:g}{sign}",
        "" if row.further is None else f"{row.further:g}{sign}",
        _verdict(row, value),
    ]


def _verdict(row: Row, value: float) -> str:
    def within(limit: float | None) -> bool:
        return limit is not None and (value >= limit if row.more_is_better else value <= limit)

    if row.reach is None:
        return ""
    if within(row.further):
        return "further"
    return "reached" if within(row.reach) else "SHORT"


def details(result: Result, measure: Measure) -> list[list[str]]:
    """Every figure of a measure: its name down, the systems across, medians."""
    table: defaultdict[str, dict[str, str]] = defaultdict(dict)
    systems: list[str] = []
    for name, values in result.figures.get(measure.name, {}).items():
        system, _, figure = name.partition(".")
        if system not in systems:
            systems.append(system)
        spread = f" ({_text(min(values))}-{_text(max(values))})" if len(values) > 1 else ""
        table[figure][system] = _text(statistics.median(values)) + spread
    return [["", *systems], *([name, *(row.get(one, "") for one in systems)] for name, row in table.items())]


def _text(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def aligned(lines: list[list[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: list[list[str]]) -> str:
    """The same for a document."""
    head, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rest])


def told(result: Result, measures: Sequence[Measure], systems: Sequence[System]) -> str:
    """Everything, for a terminal."""
    parts = [
        f"{measure.title}\n{aligned(details(result, measure))}"
        for measure in measures
        if measure.name in result.figures
    ]
    lines = summary(result, measures)
    if len(lines) > 1:
        parts.append(aligned(lines))
    measured = {name.partition(".")[0] for figures in result.figures.values() for name in figures}
    parts.append(
        "\n".join(
            f"{one.name}: {one.title}.\n    {one.guarantees}" for one in systems if one.name in measured
        )
    )
    parts += [f"skipped {name}: {why}" for name, why in result.skipped.items()]
    return "\n\n".join(parts)
