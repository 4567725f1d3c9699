"""The measures, each a file; the order is that of the table."""

from bench.measures import (
    catch_up,
    fan_out,
    idle_latency,
    idle_memory,
    insert_room,
    latency,
    rates,
    retained,
    returning,
    saturated,
    slow_readers,
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
    catch_up.MEASURE,
    slow_readers.MEASURE,
    insert_room.MEASURE,
    fan_out.MEASURE,
)

__all__ = ["MEASURES", "Figures", "Measure", "Row"]
