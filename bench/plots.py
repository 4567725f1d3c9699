"""Plots of a run as SVG, where a curve tells more than a figure."""

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Result

Curves = dict[str, list[list[tuple[float, float]]]]

COLOURS = {
    "floor": "#888888",
    "naive": "#d55e00",
    "ours": "#0072b2",
    "mosquitto": "#009e73",
    "nats": "#cc79a7",
    "socketio": "#e69f00",
}


def draw(result: Result, folder: Path) -> list[Path]:
    """Draw what there are curves of; returns the files."""
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same run gives the same files
    drawn = []
    for name, (measure, plot) in PLOTS.items():
        if curves := result.curves.get(measure):
            figure = Figure(figsize=(8, 4.2), layout="constrained")
            axes = figure.add_subplot()
            plot(axes, curves)
            axes.grid(alpha=0.3)
            figure.legend(loc="outside right upper", frameon=False)
            drawn.append(folder / f"{name}.svg")
            figure.savefig(drawn[-1], metadata={"Date": None})
    return drawn


def _each(axes: Axes, curves: Curves, wanted: str, style: str = "-", label: str = "") -> None:
    """The curve of the middle round of every system."""
    for name, rounds in curves.items():
        system, _, curve = name.partition(".")
        if curve != wanted or not rounds[0]:
            continue
        ordered = sorted(rounds, key=lambda points: points[len(points) // 2][0])
        across, up = zip(*ordered[len(ordered) // 2], strict=True)
        axes.plot(across, up, style, color=COLOURS.get(system), label=f"{system}{label}", markersize=3)


def _distribution(axes: Axes, curves: Curves) -> None:
    """On an axis on which every further nine takes as much room."""
    _each(
        axes, {name: [_nines(points) for points in rounds] for name, rounds in curves.items()}, "distribution"
    )
    axes.set_xscale("log")
    axes.set_yticks([-math.log10(1 - share) for share in (0, 0.5, 0.9, 0.99, 0.999)])
    axes.set_yticklabels(["0 %", "50 %", "90 %", "99 %", "99.9 %"])
    axes.set_xlabel("milliseconds from insert begun to frame received")
    axes.set_ylabel("share of messages")


def _nines(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(across, -math.log10(1 - share)) for across, share in points if share < 1]


def _rates(axes: Axes, curves: Curves) -> None:
    _each(axes, curves, "p99", "o-", " p99")
    _each(axes, curves, "p50", "o:", " p50")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rows per second")
    axes.set_ylabel("milliseconds")


def _memory(axes: Axes, curves: Curves) -> None:
    _each(axes, curves, "memory", "o-")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("idle connections")
    axes.set_ylabel("MiB resident")


PLOTS: dict[str, tuple[str, Callable[[Axes, Curves], None]]] = {
    "latency": ("latency", _distribution),
    "rates": ("rates", _rates),
    "memory": ("idle_memory", _memory),
    "fan_out": ("fan_out", _distribution),
}
"""By file, the measure that it shows."""
