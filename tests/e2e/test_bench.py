"""`python -m bench` runs, and its figures are of what was written."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.postgres import ROOT

TINY = {
    "warm_up_seconds": 0.2,
    "latency_seconds": 0.5,
    "latency_users": 20,
    "saturated_seconds": 0.5,
    "saturated_users": 20,
}


def test_the_benchmark_measures_us_beside_the_floor(tmp_path: Path) -> None:
    """Everything that was written arrived and was marked, and the result can be read again."""
    numbers = [argument for name, value in TINY.items() for argument in ("--set", f"{name}={value}")]
    chosen = ["--only", "latency,saturated", "--systems", "floor,ours"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", *chosen, *numbers, "--out", tmp_path],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    latency, saturated = result["figures"]["latency"], result["figures"]["saturated"]
    assert latency["ours.arrived %"] == saturated["ours.arrived %"] == [100.0]
    assert saturated["ours.all marked"] == [1.0]
    assert latency["floor.p50 ms"][0] > 0
    assert result["skipped"] == {}
    assert result["about"]["versions"]["postgresql"]
    assert "against the floor" in done.stdout
