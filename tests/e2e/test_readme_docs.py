"""The documents beside the README name what exists."""

import re
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.postgres import ROOT

ARCHITECTURE = ROOT / "docs" / "architecture.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
DOCUMENTS = [
    ARCHITECTURE,
    PROTOCOL,
    ROOT / "docs" / "security.md",
    ROOT / "docs" / "benchmarks.md",
    ROOT / "docs" / "reliability.md",
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
    ROOT / "CHANGELOG.md",
]
TWO_PAGES = 120  # lines of 115 characters, tables included

_PATH = re.compile(r"`((?:app|alembic|demo|docs|ops|tests|bench)/[\w./]*|(?:\w+\.(?:toml|yml|ini)))`")


def test_architecture_fits_two_pages() -> None:
    """Longer, and nobody reads it."""
    lines = ARCHITECTURE.read_text(encoding="utf-8").splitlines()

    assert len(lines) <= TWO_PAGES


def test_the_code_map_has_every_package() -> None:
    """A package or module of `app` that is not on the map cannot be found with it."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    packages = {f"{path.parent.name}/" for path in (ROOT / "app").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "app").glob("*.py")} - {"__init__.py"}

    assert packages
    assert [name for name in sorted(packages | modules) if f"`app/{name}" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_is_named_exists(document: Path) -> None:
    """A document that names what is gone misleads."""
    text = document.read_text(encoding="utf-8")
    named = _PATH.findall(text) + [
        str((document.parent / target).resolve().relative_to(ROOT))
        for target in re.findall(r"\]\(([\w./-]+)\)", text)
    ]

    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    """Names in capitals with an underscore are settings."""
    named = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", document.read_text(encoding="utf-8"))

    assert [name for name in named if name.lower() not in Settings.model_fields] == []
