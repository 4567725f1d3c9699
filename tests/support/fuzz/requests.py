"""Requests over HTTP that nobody thought of: addresses, headers, and bodies of what a device uploads."""

from random import Random
from urllib.parse import quote_from_bytes

from tests.support.fuzz.words import Words

_NAMES = [
    "user_id",
    "device_token",
    "position",
    "ack",
    "ticket",
    "limit",
    "wait",
    "User_Id",
    "",
    "token",
    "user_id[]",
    "\x00",
]
_VALUES = [
    "ada", "", "x" * 255, "x" * 256, "x" * 7000, "\x00", "a\x00b", "é😀", "null", "-1", "1e9", "NaN", "../..", "' OR 1=1 --", "<script>",
    "AQ", "AQAAAAAAAAABAP8A_wD_AP-AgIGxhOmRAwEA", "A" * 2048, "A" * 2049, "====", "eyJhbGciOiJub25lIn0.e30.", "\r\nX: y",
]  # fmt: skip
_BYTES = [
    b"%",
    b"%zz",
    b"%ff%fe",
    b"%00",
    b"%ED%A0%80",
    b"&" * 60,
    b"=" * 9,
    b"+",
    b";",
    b"a=b=c",
    b"%F0%9F%98%80",
]
_KEYS = ["key", "action_type", "payload", "key ", "", "Key"]


class Requests:
    """An endless supply; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._words = Words(seed)

    def query(self) -> str:
        """A query string as it goes over the wire; half of them name a user."""
        pairs = ["user_id=ada"] if self._random.random() < 0.5 else []
        for _ in range(self._random.randrange(5)):
            if self._random.random() < 0.2:
                pairs.append(self._random.choice(_BYTES).decode())
            else:
                value = quote_from_bytes(
                    self._random.choice((*_VALUES, self._words.message()[:500])).encode(
                        errors="surrogatepass"
                    )
                )
                pairs.append(f"{self._random.choice(_NAMES).replace(chr(0), '%00')}={value}")
        self._random.shuffle(pairs)
        return "&".join(pairs)

    def header(self) -> str:
        """A line of a request's head that a stream or a socket looks at."""
        name = self._random.choice(
            (
                "Last-Event-ID",
                "X-Device-Token",
                "Cookie",
                "Authorization",
                "Origin",
                "Accept",
                "Sec-WebSocket-Protocol",
            )
        )
        value = self._random.choice(
            ("!4403", "!", "text/event-stream", "Bearer x", "mindvibe_ticket=x", *_VALUES[:4], *_VALUES[12:])
        )
        return f"{name}: {''.join(letter for letter in value if letter.isprintable())}"

    def upload(self, user_id: str, device_token: str) -> bytes:
        """The body of an upload; most are of this user and device."""
        user = f'"{user_id}"' if self._random.random() < 0.9 else self._words.value(2)
        device = f'"{device_token}"' if self._random.random() < 0.9 else self._words.value(2)
        actions = ",".join(self._action() for _ in range(self._random.randrange(6)))
        body = f'{{"user_id":{user},"device_token":{device},"actions":[{actions}]}}'
        if self._random.random() < 0.1:
            body = self._words.message()
        return body.encode(errors="surrogatepass")

    def ack(self, user_id: str) -> bytes:
        """The body of an ack; most are of this user."""
        user = f'"{user_id}"' if self._random.random() < 0.9 else self._words.value(2)
        ids = ",".join(
            self._words.value(1) if self._random.random() < 0.3 else str(self._random.randrange(1, 99))
            for _ in range(3)
        )
        position = self._random.choice(
            ("null", '"AQAAAAAAAAABAP8A_wD_AP-AgIGxhOmRAwEA"', self._words.value(1))
        )
        return f'{{"user_id":{user},"ids":[{ids}],"position":{position}}}'.encode(errors="surrogatepass")

    def _action(self) -> str:
        if self._random.random() < 0.3:
            return self._words.value(3)
        key, payload = self._random.randrange(60), self._words.object()
        action = [f'"key":"k{key}"', '"action_type":"read"', f'"payload":{payload}']
        if self._random.random() < 0.5:
            action[self._random.randrange(3)] = f'"{self._random.choice(_KEYS)}":{self._words.value(3)}'
        return "{" + ",".join(action) + "}"
