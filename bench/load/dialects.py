"""How clients of each system speak, by name."""

from collections.abc import Callable

from bench.load.clients import Client, Listening, Plain, Resuming
from bench.load.mqtt import Mqtt
from bench.load.nats import Nats
from bench.load.socketio import SocketIo
from bench.load.tally import Tally

DIALECTS: dict[str, Callable[[str, str, Tally], Client]] = {
    "plain": Plain,
    "resuming": Resuming,
    "listening": Listening,
    "mqtt": Mqtt,
    "nats": Nats,
    "socketio": SocketIo,
}
"""Each takes where to connect (a port, or an address of a database), a user and what it tallies in."""
