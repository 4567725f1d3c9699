"""docs/protocol.md as tests read it: its examples as steps, its tables as cells, and what `<…>` stands for."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

from app.core.token import decode
from tests.support.postgres import ROOT

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"<(\w+)( \d+)?>")
_BARE = re.compile(r'(?<!")<\w+(?: \d+)?>(?!")')


class Step(NamedTuple):
    """One line of an example: `>` the client, `<` the server, `#` what happens meanwhile."""

    who: str
    text: str


@dataclass(frozen=True)
class Example:
    """A fenced block; `line` is where it stands."""

    language: str
    text: str
    line: int

    @property
    def steps(self) -> list[Step]:
        """Its lines, those that go on with another joined to it."""
        steps: list[Step] = []
        for line in self.text.splitlines():
            if line.startswith("   "):
                steps[-1] = Step(steps[-1].who, steps[-1].text + line.strip())
            else:
                assert line[:1] in ("<", ">", "#"), f"nobody says {line!r}"
                assert line[1:2] in ("", " "), f"nobody says {line!r}"
                steps.append(Step(line[0], line[2:]))
        return steps


def examples(document: str = DOCUMENT) -> list[Example]:
    """Every fenced block, in order."""
    return [
        Example(found[1], found[2], 1 + document[: found.start()].count("\n"))
        for found in _FENCE.finditer(document)
    ]


def prose(document: str = DOCUMENT) -> str:
    """What is neither an example nor a limit."""
    return _FENCE.sub("", document).partition("\n## Limits")[0]


def table(first_column: str, document: str = DOCUMENT) -> list[list[str]]:
    """The cells of the table with this first heading, without its heading."""
    lines = document.splitlines()
    start = next(
        n
        for n, line in enumerate(lines)
        if line.startswith(f"| {first_column} |") and lines[n + 1].startswith("|--")
    )
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.split("|")[1:-1]])
    return rows


def spans(cell: str) -> list[str]:
    """The code in a cell."""
    return re.findall(r"`([^`]*)`", cell)


def _is_position(value: object) -> bool:
    return isinstance(value, str) and bool(decode(value))


def _text_of(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


KINDS: dict[str, Callable[[object], bool]] = {
    "id": lambda value: type(value) is int and value > 0,
    "number": lambda value: type(value) is int and value >= 0,
    "time": _text_of(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    "position": _is_position,
    "epoch": _text_of(r"[0-9a-f]{16}"),
    "ticket": _text_of(r"[A-Za-z0-9_-]{43}"),
    "text": _text_of(r"(?s).+"),
}


@dataclass
class Values:
    """What `<…>` stood for in one run of an example; those with a number stand for the same throughout."""

    bound: dict[str, Any] = field(default_factory=dict)
    user: str = field(default_factory=lambda: f"user-{uuid4()}")

    def fill(self, text: str) -> str:
        """What a client really says, or the server about it: this run's own user and devices."""
        return text.replace("user123", self.user).replace("phone-", f"phone-of-{self.user}-")

    def spoken(self, text: str) -> str:
        """A client's words, with the values that stand for something."""
        return _PLACE.sub(lambda found: str(self.bound[found[0]]), self.fill(text))

    def check_json(self, written: str, said: str | bytes) -> None:
        """Fail unless what the server said has exactly the keys and values that are written."""
        expected = json.loads(_BARE.sub(lambda found: f'"{found[0]}"', self.fill(written)))
        self._check(expected, json.loads(said), str(said))

    def check_text(self, written: str, said: str) -> None:
        """The same for a line that is no JSON."""
        written = self.fill(written)
        places = [found[0] for found in _PLACE.finditer(written)]
        around = re.split(_PLACE.pattern.replace("(", "(?:"), written)
        found = re.fullmatch("(.+?)".join(map(re.escape, around)), said)
        assert found is not None, f"{said!r} where {written!r} was written"
        for place, value in zip(places, found.groups(), strict=True):
            self._check(place, int(value) if value.isdigit() else value, said)

    def _check(self, expected: Any, actual: Any, said: str) -> None:
        if isinstance(expected, dict):
            assert isinstance(actual, dict), said
            assert set(actual) == set(expected), f"the keys differ in {said}"
            for key, value in expected.items():
                self._check(value, actual[key], said)
        elif isinstance(expected, list):
            assert isinstance(actual, list), said
            assert len(actual) == len(expected), said
            for one, other in zip(expected, actual, strict=True):
                self._check(one, other, said)
        elif isinstance(expected, str) and (place := _PLACE.fullmatch(expected)):
            assert KINDS[place[1]](actual), f"{actual!r} is no {place[0]} in {said}"
            if place[2]:
                assert self.bound.setdefault(expected, actual) == actual, f"{expected} in {said}"
        else:
            assert (type(actual), actual) == (type(expected), expected), said
