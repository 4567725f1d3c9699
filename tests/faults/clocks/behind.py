"""An hour behind."""

from datetime import timedelta

from tests.faults.clocks import shifted

app = shifted(timedelta(hours=-1))
