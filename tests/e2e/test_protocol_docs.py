"""docs/protocol.md is true: its examples are played, its codes and numbers are those of the code."""

import ast
import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from app.admin.schemas import MOST_LETTERS
from app.auth import tickets, tokens
from app.core import acks, expiry, inbound, token
from app.core.close_codes import CloseCode
from app.core.flight import Limits
from app.core.position import Lost
from app.gateway import admission, sse, sse_socket, websocket
from app.gateway.uvicorn_host import inbound as frames
from app.http import RETRY_AFTER
from app.main import create_app
from app.request_limits import BODIES_AT_ONCE, MOST_PARTS
from app.settings import Settings
from app.store import redeliveries
from app.sync import actions, polling, reading, schemas
from app.sync.waiters import Waiters
from tests.e2e.conftest import StartServer
from tests.e2e.players import PLAYERS
from tests.e2e.protocol import DOCUMENT, Example, examples, prose, spans, table
from tests.support import host as app
from tests.support.issuer import SECRET
from tests.support.postgres import ROOT, Database, free_port
from tests.support.server import Server

UNITS = {
    "s": 1,
    "d": 1,
    "ms": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    **dict.fromkeys(
        (
            "times",
            "messages",
            "characters",
            "connections",
            "requests",
            "actions",
            "levels",
            "letters",
            "attempts",
            "bytes",
        ),
        1,
    ),
}
ANY_REQUEST = {408, 413, 414}
"""What the document says of every endpoint at once."""
PLAYED = [example for example in examples() if example.language in PLAYERS]
PROGRAMS = [example for example in examples() if example.language == "python"]


def fixed() -> dict[str, Any]:
    """What the limits are in the code that no setting changes."""
    persistence = redeliveries.Persistence()
    waiters = Waiters()
    functions = (ROOT / "alembic/versions/sql/functions.sql").read_text(encoding="utf-8")
    return {
        "`data` of an event": int(re.findall(r"IF octet_length\(payload::text\) > (\d+) THEN", functions)[0]),
        "`sent again`": acks.SENT_AGAIN_AT_MOST,
        "`nacks`": persistence.nacks,
        "`attempts`": persistence.attempts,
        "`dead after`": persistence.at_least,
        "kept of a nack's `reason`": redeliveries.LONGEST_DETAIL,
        "times that: closed with 1009": frames.SKIP_FACTOR,
        "`bad messages` a minute": inbound.Guard.PATIENCE,
        "a token": tokens.LONGEST,
        "`notice given` before it expires": expiry.NOTICE,
        "`ticket's life`": tickets.LIFETIME,
        "SSE `retry:`": sse_socket.RETRY,
        "SSE `retry:` of a leaving process": sse_socket.RETRY_NOW,
        "SSE `retry:` of a refusal": (sse.RETRY_AFTER * 1000, sse.RETRY_AFTER * 2000),
        "`Retry-After`": int(RETRY_AFTER["Retry-After"]),
        "`user_id`, `device_token`": admission.MAX_ID,
        "a position": token.MAX_CHARS,
        "commas and opening brackets of that": MOST_PARTS,
        "request bodies of a user at once to a process": BODIES_AT_ONCE,
        "`limit`, `ids`": reading.MOST_MESSAGES,
        "messages of a sync answer": reading.MOST_BYTES,
        "`again`: of those, what was nacked or redriven": reading.MOST_AGAIN,
        "`wait`": polling.LONGEST_WAIT,
        "waiting requests of a user to a process": waiters._per_user,
        "waiting requests of a process": waiters._per_process,
        "`actions`": schemas.MOST_ACTIONS,
        "`key`": actions.LONGEST_KEY,
        "`action_type`": actions.LONGEST_TYPE,
        "`payload` of an action": actions.LARGEST_PAYLOAD,
        "levels of that": actions.DEEPEST_PAYLOAD,
        "`limit` of dead letters": MOST_LETTERS,
    }


def number(cell: str) -> Any:
    """The value of a cell such as `1 MiB` or `1000 to 4000 ms`."""
    *values, unit = cell.replace(" to ", " ").split()
    found = [int(value) * UNITS[unit] for value in values]
    return found[0] if len(found) == 1 else tuple(found)


def codes_said() -> set[str]:
    """Every error code that the code can tell, whoever tells it."""
    place = {"Turned": 1, "Rejected": 0, "Refusal": 1, "problem": 1, "error": 0, "BadCredentials": 0}
    said: set[str] = set()
    for path in (ROOT / "app").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in place and len(call.args) > place[name]:
                said |= _constants(call.args[place[name]])
    return said


def ends_of_streams() -> set[str]:
    """What a connection ends with, but for 1001, which says when to come back, and for bad messages."""
    places = ("core/session.py", "gateway/connection.py", "gateway/hub.py")
    source = "".join((ROOT / "app" / place).read_text(encoding="utf-8") for place in places)
    names = set(re.findall(r"CloseCode\.([A-Z_]+)", source))
    return {name.lower() for name in names - {"GOING_AWAY", "BAD_REQUEST"}}


def _constants(argument: ast.expr) -> set[str]:
    match argument:
        case ast.Constant(value=str(text)):
            return {text} if re.fullmatch(r"[a-z]\w+", text) else set()
        case ast.Attribute(attr="why"):
            # An ack without a position asks for none, and one that is none is a 422.
            return {*map(str, Lost)} - {Lost.NEW, Lost.MALFORMED}
        case ast.Call(func=ast.Attribute(attr="lower")):
            return ends_of_streams()
    return set()


# ---- the examples


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Nobody waits for a pause or for what expires; and twenty bad messages are not too many at once."""
    return {"nack_pause": 0.2, "inbound_rate": 400, "housekeeping_interval": 0.2}


@pytest.fixture
def stage(request: pytest.FixtureRequest, house: Database, start_server: StartServer) -> Iterator[Server]:
    """The server an example is played on: one of its own where it is stopped, or must lose its patience."""
    text = request.getfixturevalue("example").text
    if "ACK_TIMEOUT passes" in text:
        yield start_server(house.url, ack_timeout=1)
    elif "<token" in text:
        yield start_server(house.url, jwt_secret=SECRET)
    elif "the process is told to stop" in text:
        yield start_server(house.url)
    else:
        yield request.getfixturevalue("server")


@pytest.mark.parametrize("example", PLAYED, ids=lambda one: f"line-{one.line}")
async def test_an_example_is_what_happens(example: Example, stage: Server, host: asyncpg.Connection) -> None:
    """Key by key, and nothing more is said than is written."""
    await stage.healthy()
    async with AsyncExitStack() as stack:
        await PLAYERS[example.language](stage, host, stack).play(example)


def test_every_example_is_checked() -> None:
    """One in another language than those that are played would only be believed."""
    assert len(PLAYED) > 10
    assert len(PROGRAMS) == 1
    assert len(PLAYED) + len(PROGRAMS) == len(examples()) == DOCUMENT.count("\n```") / 2


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["its nack is written", "its nack is forgotten"])
async def test_the_client_takes_everything_once_through_a_crash_of_the_server(
    house: Database, start_server: StartServer, host: asyncpg.Connection, is_forgotten: bool
) -> None:
    """In order; what it could not take at first comes again; and it stays away when it is told to."""
    program: dict[str, Any] = {}
    exec(compile(PROGRAMS[0].text, "docs/protocol.md", "exec"), program)
    user, port = await app.add_user(host), free_port()
    state: dict[str, Any] = {"position": "", "epoch": None, "ids": set()}
    taken: list[int] = []
    reasons: list[str] = []
    refused: list[int] = []
    changed = asyncio.Event()

    async def process(message: dict[str, Any]) -> None:
        score = message["data"]["mood_score"]
        if score == 2 and score not in refused:
            refused.append(score)
            raise OSError("disk full")
        taken.append(score)
        changed.set()

    async def reload(reason: str) -> None:
        reasons.append(reason)

    async def until_taken(count: int) -> None:
        async with asyncio.timeout(60):
            while len(taken) < count:
                changed.clear()
                await changed.wait()

    interval = 60 if is_forgotten else 0.05
    server = start_server(house.url, port=port, nack_pause=0.2, receipts_interval=interval)
    await server.healthy()
    url = f"ws://localhost:{port}/realtime/ws"
    following = asyncio.create_task(program["follow"](url, user, state, process, reload))
    try:
        await app.log_moods(host, [user], 3)
        await until_taken(2 if is_forgotten else 3)
        server.kill()
        for score in (4, 5, 6):
            await app.log_mood(host, user, score)
        other = start_server(house.url, port=port, nack_pause=0.2)
        await other.healthy()
        await until_taken(6)
        await app.delete_user(host, user)
        async with asyncio.timeout(60):
            code = await following
    finally:
        following.cancel()

    assert code == CloseCode.NOT_ALLOWED
    assert sorted(taken) == [1, 2, 3, 4, 5, 6]
    assert taken.index(2) > taken.index(3)
    assert [score for score in taken if score != 2] == [1, 3, 4, 5, 6]
    assert reasons == ["new"]


def test_the_client_has_the_numbers_of_the_document() -> None:
    """And they suit the server's: a client waits longer than the server is silent."""
    ping, patience, backoff, caution = (number(row[1]) for row in table("limit") if row[2] == "the client's")

    assert f"sleep({ping})" in PROGRAMS[0].text
    assert f"ws.recv(), {patience})" in PROGRAMS[0].text
    assert f"min({backoff}, 2**failures)" in PROGRAMS[0].text
    assert f"nacked_at > {caution}:" in PROGRAMS[0].text
    assert ping > Limits().heartbeat_interval
    assert patience > Limits().heartbeat_interval + Limits().heartbeat_patience


# ---- the tables


def test_every_close_code_is_there_and_no_other() -> None:
    """Those of the service, those of a client that breaks the protocol, and 1006, which nobody sends."""
    rows = [([int(code) for code in row[0].split(", ")], spans(row[1])) for row in table("close code")]
    source = (ROOT / "app/gateway/uvicorn_host/inbound.py").read_text(encoding="utf-8")
    of_frames = {int(frames.CloseCode[name]) for name in re.findall(r"CloseCode\.([A-Z_]+)", source)}

    assert {code for codes, _ in rows for code in codes} == {*map(int, CloseCode), *of_frames, 1006}
    for codes, names in rows:
        assert set(names) == {each.name.lower() for each in CloseCode if each in codes} & ends_of_streams()


def test_every_error_code_is_there_and_no_other() -> None:
    """Whether a WebSocket, a stream or an answer tells it."""
    written = [code for row in table("`code`") for code in spans(row[0])]

    assert sorted(written) == sorted(codes_said())


def test_every_reason_is_there_and_no_other() -> None:
    """Why a position cannot be resumed."""
    assert {spans(row[0])[0] for row in table("`reason`")} == {str(reason) for reason in Lost}


def test_every_message_of_a_client_is_understood() -> None:
    """As what the table says."""
    understood = [
        (span, inbound.parse(span.replace("N", "1")))
        for row in table("from the client")
        for span in spans(row[0])
        if span != "reason"
    ]

    assert [said for _, said in understood] == [
        *[inbound.Ping()] * 4, inbound.Ack(1), inbound.Nack(1, "…"), inbound.Auth("…")
    ]  # fmt: skip


def test_the_parameters_of_a_websocket_are_those_it_reads() -> None:
    """No other is looked at; a stream reads the same but for acks."""
    source = "".join(
        (ROOT / module.__file__).read_text(encoding="utf-8") for module in (websocket, admission, sse)
    )
    read = set(re.findall(r'(?:parameters|asked|query\(scope\))\.get\("(\w+)"', source))

    assert {spans(row[0])[0] for row in table("parameter")} == read


def test_the_endpoints_take_and_answer_what_is_written() -> None:
    """As the application itself describes them."""
    schema = create_app().openapi()
    paths = {
        path: each
        for path, each in schema["paths"].items()
        if re.search("/(sync|devices|tickets|dead-letters)", path)
    }
    described = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            takes = [one["name"] for one in operation.get("parameters", [])]
            if "requestBody" in operation:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                takes += schema["components"]["schemas"][name.rpartition("/")[2]]["properties"]
            statuses = sorted({int(status) for status in operation["responses"]} - ANY_REQUEST)
            described[f"{method.upper()} {path}"] = (sorted(takes), statuses)
    written = {
        spans(row[0])[0]: (sorted(spans(row[1])), sorted(int(status) for status in row[2].split(", ")))
        for row in table("endpoint")
    }

    assert written == described


def test_the_statuses_of_a_stream_are_those_it_ends_with() -> None:
    """What ends for good is a status; what passes is one only for who reads no streams."""
    written = {int(status) for row in table("status") for status in row[0].split(", ")}

    assert written == {200, 204, 405, 414, 429, 503, *sse_socket.STATUS.values()}


def test_the_refusals_of_a_websocket_are_those_before_the_accept() -> None:
    """By the door, or by the endpoint itself."""
    source = "".join(
        (ROOT / "app/gateway" / name).read_text(encoding="utf-8") for name in ("door.py", "websocket.py")
    )
    told = re.findall(r"(?:Turned\(|_refuse\(send, scope, )(\d+)", source)

    written = [int(status) for row in table("refused with") for status in row[0].split(", ")]
    assert sorted(written) == sorted({int(status) for status in told})


def test_who_is_an_operator_is_said_where_operators_look() -> None:
    """The token first: the loopback address is only for where nobody is asked for one."""
    section = DOCUMENT.partition("### Dead letters")[2].partition("```")[0]

    assert 0 < section.find("`SERVICE_TOKEN`") < section.find("`loopback_only`")


def test_the_limits_are_those_of_the_code() -> None:
    """Each with the default of its setting, or fixed."""
    constants = fixed()
    for name, value, setting in table("limit"):
        if setting == "fixed":
            assert number(value) == constants.pop(name), name
        elif setting != "the client's":
            assert number(value) == Settings.model_fields[spans(setting)[0].lower()].default, name

    assert constants == {}


def test_the_text_has_no_numbers_of_its_own() -> None:
    """A number that stands in two places is wrong in one of them before long."""
    units = "|".join(UNITS)

    assert re.findall(rf"\b\d[\d.]* (?:{units}|seconds|minutes|days)\b", prose()) == []


def test_what_the_text_calls_by_name_is_a_limit() -> None:
    """Settings, and the limits that have a name of their own."""
    limits = " ".join(cell for row in table("limit") for cell in row) + "`ALLOWED_ORIGINS` `SERVICE_TOKEN`"
    named = [
        span
        for span in spans(prose().replace("\n", " "))
        if re.fullmatch(r"[A-Z]+(?:_[A-Z]+)*", span) or re.fullmatch(r"[a-z']+ [a-z]+", span)
    ]

    assert len(named) > 20
    assert [span for span in named if f"`{span}`" not in limits] == []
