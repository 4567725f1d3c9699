"""The measures, each a file; the order is that of the table."""

from bench.measures import (
    fan_out,
    idle_latency,
    idle_memory,
    insert_room,
    latency,
    rates,
    retained,
    returning,
    saturated,
)
from bench.measures.base import Figures, Measure, Row

MEASURES: tuple[Measure, ...] = (
    latency.MEASURE,
    rates.MEASURE,
    saturated.MEASURE,
    idle_memory.MEASURE,
    idle_latency.MEASURE,
    retained.MEASURE,
    returning.MEASURE,
    insert_room.MEASURE,
    fan_out.MEASURE,
)

__all__ = ["MEASURES", "Figures", "Measure", "Row"]
