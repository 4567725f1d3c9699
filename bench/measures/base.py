"""What every measure looks like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import System

Points = list[tuple[float, float]]


@dataclass
class Figures:
    """What one system came to in one round."""

    values: dict[str, float] = field(default_factory=dict)
    """By name with its unit, such as `p50 ms`."""
    curves: dict[str, Points] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the table: a figure of ours, beside another's or by itself, and how far it should reach."""

    title: str
    """With counts of the scale, as `{idle_connections:,}`."""
    figure: str
    """`SYSTEM.NAME` as in `Figures`."""
    beside: str | None = None
    """The figure it is divided by."""
    reach: float | None = None
    further: float | None = None
    more_is_better: bool = False


@dataclass(frozen=True)
class Measure:
    """One thing that is measured, on several systems in turn."""

    name: str
    title: str
    systems: Sequence[str]
    run: Callable[[Postgres, System, Scale], Figures]
    rows: Sequence[Row] = ()
    rounds: int | None = None
    """At most so many, where a round takes minutes."""
    in_quick: bool = True
    """Whether smaller numbers say anything."""


def milliseconds(ages: list[int], share: float) -> float:
    """The quantile of ages in microseconds; nan where there are none."""
    ordered = sorted(ages)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000 if ordered else float("nan")


def distribution(ages: list[int]) -> Points:
    """Milliseconds and the share of messages that came within, at most 200 points, denser at the end."""
    shares = [n / 100 for n in range(100)] + [0.99 + n / 10_000 for n in range(100)]
    return [(milliseconds(ages, share), share) for share in shares] if ages else []
