"""Socket.IO for Node with its PostgreSQL adapter; a trigger NOTIFYs what its emitter would."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.postgres import Postgres
from bench.systems import programs
from bench.systems.base import Running, dropped_afterwards
from bench.systems.served import free_port

PACKAGES = ("socket.io@4", "@socket.io/postgres-adapter@0.5", "pg@8")
FOLDER = Path(".bench") / "node"
"""Where the packages are installed, and stay for the next run."""
SCHEMA = """
CREATE TABLE moods (id serial PRIMARY KEY, user_id text, score int, at timestamptz);
CREATE TABLE socket_io_attachments (id bigserial UNIQUE, created_at timestamptz DEFAULT now(), payload bytea);
CREATE FUNCTION emit_mood() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('socket.io#/', json_build_object('uid', 'emitter', 'nsp', '/', 'type', 3, 'data',
        json_build_object(
            'opts', json_build_object('rooms', json_build_array(NEW.user_id), 'except', json_build_array(),
                                      'flags', json_build_object()),
            'packet', json_build_object('type', 2, 'nsp', '/', 'data', json_build_array('mood_update',
                json_build_object('event_type', 'mood_logged', 'user_id', NEW.user_id,
                                  'mood_score', NEW.score, 'timestamp', NEW.at)))))::text);
    RETURN NEW;
END $$;
CREATE TRIGGER mood AFTER INSERT ON moods FOR EACH ROW EXECUTE FUNCTION emit_mood();
"""


class SocketIo:
    """A well-known library for the same job."""

    name = "socketio"
    title = "Socket.IO for Node with its PostgreSQL adapter"
    guarantees = (
        "At most once: what is written while a client or the server is away is gone (this adapter does not"
        " recover connections). Every write takes PostgreSQL's one lock on notifications until its commit is"
        " durable. Messages to a room reach it on every server."
    )

    def missing(self) -> str | None:
        if programs.find("node") is None or programs.find("npm") is None:
            return "node and npm are not there (pip install -e '.[bench]')"
        if not (FOLDER / "node_modules" / "socket.io").exists():
            return _install()
        return None

    def versions(self) -> dict[str, str]:
        package = FOLDER / "node_modules" / "socket.io" / "package.json"
        lines = [line for line in package.read_text(encoding="utf-8").splitlines() if '"version"' in line]
        node = programs.says(str(programs.find("node")), "--version")
        return {"node": node, "socket.io": lines[0].strip(' ",').rpartition('"')[2]}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        dsn = server.with_schema(SCHEMA)
        port = free_port()
        script = FOLDER / "server.mjs"
        shutil.copyfile(Path(__file__).with_name("socketio_server.mjs"), script)
        command = [str(programs.find("node")), str(script)]
        environment = {"DATABASE_URL": dsn, "PORT": str(port)}
        with (
            dropped_afterwards(server, dsn),
            programs.running(command, port, environment=environment) as processes,
        ):
            yield Running(dsn, str(port), dialect="socketio", processes=processes)


def _install() -> str | None:
    """Fetch the packages; why that failed, or None."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [str(programs.find("npm")), "install", "--no-audit", "--no-fund", "--no-save", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=180)
    except subprocess.TimeoutExpired:
        return "npm's registry does not answer"
    if done.returncode:
        return f"npm install failed: {done.stderr.strip().partition(chr(10))[0]}"
    return None
