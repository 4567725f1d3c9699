"""The measures, each a file; the order is that of the table."""

from bench.measures import latency, saturated
from bench.measures.base import Figures, Measure, Row

MEASURES: tuple[Measure, ...] = (latency.MEASURE, saturated.MEASURE)

__all__ = ["MEASURES", "Figures", "Measure", "Row"]
