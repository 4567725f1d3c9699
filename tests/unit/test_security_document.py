"""The threat model names tests that there are."""

import re

from tests.support.postgres import ROOT

SECURITY = ROOT / "docs" / "security.md"
ONE_PAGE = 90  # lines, the checklist and the way to report included


def test_every_test_that_the_threat_model_names_exists() -> None:
    """A promise without its test is only a promise."""
    named = set(re.findall(r"`(test_\w+)`", SECURITY.read_text(encoding="utf-8")))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(
            r"^\s*(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }

    assert len(named) > 20
    assert sorted(named - there) == []


def test_every_threat_has_a_test() -> None:
    """In the last column of its row."""
    rows = [line for line in SECURITY.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]

    assert rows
    assert [row for row in rows if "`test_" not in row.rstrip("|").rpartition("|")[2]] == []


def test_it_is_short() -> None:
    """Longer, and nobody reads it."""
    assert len(SECURITY.read_text(encoding="utf-8").splitlines()) <= ONE_PAGE
