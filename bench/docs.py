"""Put the figures of a run into docs/benchmarks.md: `python -m bench.docs [results.json]`.

What stands between the two marks there is written anew; the words around it are a person's.
"""

import sys
from pathlib import Path
from typing import Any

from bench.measures import MEASURES
from bench.report import Result, details, markdown, summary
from bench.systems import SYSTEMS

DOCUMENT = Path("docs/benchmarks.md")
RESULTS = Path("docs/benchmarks/results.json")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def section(result: Result, plots: list[str]) -> str:
    """What is told of a run, as Markdown; `plots` are the links to its pictures."""
    lines = summary(result, MEASURES)
    short = [line[0] for line in lines if line[-1] == "SHORT"]
    parts = [_about(result.about), markdown(lines)]
    parts.append("Nothing fell short." if not short else f"Short of what was wanted: {'; '.join(short)}.")
    parts += [f"![{Path(plot).stem}]({plot})" for plot in plots]
    parts.append("### Every figure")
    parts.append("Medians, and in brackets the least and the most of the rounds.")
    for measure in MEASURES:
        if measure.name in result.figures:
            parts += [f"**{measure.title}** (`{measure.name}`)", markdown(details(result, measure))]
    parts += [f"Not measured: {name}, {why}." for name, why in result.skipped.items()]
    return "\n\n".join(parts)


def guarantees() -> str:
    """What each system promises and what not."""
    rows = [[one.name, one.title, one.guarantees] for one in SYSTEMS]
    return markdown([["name", "what it is", "what it guarantees, and what not"], *rows])


def _about(about: dict[str, Any]) -> str:
    machine, versions = about["machine"], about["versions"]
    load = machine["load before"][0]
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"`{about['command']}` on {about['date'][:10]}: {machine['processors']} processors"
        f" ({machine['processor']}), {machine['memory GiB']} GiB, load before {load}; {told}."
    )


def written(text: str, result: Result, plots: list[str]) -> str:
    """The document with the figures of a run."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    parts = [BEGIN, section(result, plots), "### What each guarantees", guarantees(), END]
    return before + "\n\n".join(parts) + after


def main() -> None:
    """Rewrite the document."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    plots = [f"{path.parent.name}/{plot.name}" for plot in sorted(path.parent.glob("*.svg"))]
    text = written(DOCUMENT.read_text(encoding="utf-8"), Result.read(path), plots)
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
