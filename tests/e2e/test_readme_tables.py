"""The README's tables say what the code says."""

import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

from app.core.close_codes import CloseCode
from app.gateway import sse
from app.gateway.websocket import PATH
from app.main import create_app
from app.settings import Settings
from tests.e2e.readme import README, table
from tests.support.postgres import ROOT


def shown(default: Any) -> str:
    """A default as the table writes it."""
    match default:
        case None:
            return "unset"
        case Enum():
            return f"`{default.value}`"
        case Path():
            return f"`{default}`"
        case _:
            return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_configuration_table_is_the_settings_class() -> None:
    """Every setting, in the order of the class, with its default."""
    written = [(name, default) for name, default, _, _ in table("variable")]

    assert written == [
        (f"`{name.upper()}`", shown(field.default)) for name, field in Settings.model_fields.items()
    ]


def test_the_configuration_table_has_the_units_of_the_settings_class() -> None:
    """Seconds and days where the types say so, a unit for every number, and no unit for a text."""
    for name, _, unit, meaning in table("variable"):
        field = Settings.model_fields[name.strip("`").lower()]
        if field.description in ("seconds", "days"):
            assert unit == field.description, name
        assert bool(unit) == (type(field.default) in (int, float)), name
        assert meaning, name


def test_the_endpoints_table_is_the_application() -> None:
    """Every route, and no other."""
    written = {re.match(r"`(\w+) ([^?`]+)", cells[0]).groups() for cells in table("endpoint")}
    routes = {
        (method.upper(), path.replace("{device_id}", "{id}"))
        for path, methods in create_app().openapi()["paths"].items()
        for method in methods
    }

    assert written == routes | {("WS", PATH), ("GET", sse.PATH), ("GET", "/docs")}


def test_the_close_codes_table_names_codes_of_the_service() -> None:
    """A code that is documented exists; those the service never sends itself are 1006 and unknown ones."""
    written = {int(code) for cells in table("close code") for code in re.findall(r"\d{4}", cells[0])}

    assert written - {1006} <= {int(code) for code in CloseCode}


def test_the_messages_table_holds_json() -> None:
    """What stands in it is JSON once the places left open are filled."""
    for cells in table("message"):
        text = cells[0].strip("`").replace("{…}", "{}").replace("…", '"…"')
        assert "type" in json.loads(text)


def test_links_within_the_repository_lead_somewhere() -> None:
    """Files and folders exist, and so do the headings."""
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (ROOT / target).exists(), target
