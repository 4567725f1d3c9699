"""Messages of a client: good ones, nearly good ones, and JSON that is meant to hurt."""

from random import Random

SECRET_PART = "SECRET"
"""In whatever a client means for the service alone: it must not come back."""

_TYPES = [
    "ping",
    "heartbeat",
    "ack",
    "nack",
    "auth",
    "connected",
    "error",
    "sync",
    "PING",
    "",
    "ack ",
    "\\u0061ck",
]
_KEYS = [
    "type",
    "seq",
    "reason",
    "token",
    "id",
    "data",
    "position",
    "",
    "Type",
    "ty\\u0070e",
    "__class__",
    "\\ud800",
]
_TEXTS = [
    *(
        "",
        "x",
        "ping",
        "null",
        "\\u0000",
        "\\ud800",
        "\\udfff\\ud800",
        "\\ud83d\\ude00",
        "é",
        "\u202e",
        "😀",
        "\\\\",
        '\\"',
    ),
    *(
        SECRET_PART,
        f"{SECRET_PART}.{SECRET_PART}.{SECRET_PART}",
        "' OR 1=1 --",
        "{}",
        "%00",
        "\\n\\r\\n",
        "\x7f",
        "\ufeff",
    ),
]
_NUMBERS = [
    *("0", "1", "2", "3", "-1", "-0", "1.0", "0.5", "1e0", "1e3", "01", "+1", "1.", ".5", "0x1", "1_0"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "1e308", "1e999", "-1e999", "1e-999"),
    *("NaN", "Infinity", "-Infinity", "nan", "9" * 400, "9" * 5000, "1e" + "9" * 50),
]
_OTHERS = ["true", "false", "null", "[]", "{}", "True", "None", "undefined"]
_ODD = [
    "",
    " ",
    "ping",
    "heartbeat",
    "ping ",
    "PING",
    "pong",
    "\x00",
    "\ufeff",
    "{",
    "}",
    "[",
    '"',
    "\\",
    "😀" * 9,
    "null",
    "nul",
]
_JUNK = 'abc{}[]",:\\ \t\n0123456789.eE+-trufalsn\x00\x1f\x7f\x85é€😀\ud800\u2028'


class Words:
    """An endless supply; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def message(self) -> str:
        """Whatever somebody may send as a text."""
        one = self._random.random()
        if one < 0.2:
            return self.understood()
        if one < 0.55:
            return self.object()
        if one < 0.8:
            return self._damaged(self._random.choice((self.understood, self.object))())
        if one < 0.9:
            return self.value(4)
        if one < 0.93:
            return self._random.choice(_ODD)
        if one < 0.995:
            return "".join(self._random.choices(_JUNK, k=self._random.randrange(80)))
        return self._large()

    def understood(self) -> str:
        """One that a service understands, whatever it thinks of its numbers."""
        seq = self._random.choice(("1", "2", "3", "0", "-1", "7", "9223372036854775808", "9" * 400))
        reason = self._random.choice(_TEXTS)
        return self._random.choice(
            (
                "ping",
                "heartbeat",
                '{"type":"ping"}',
                '{"type":"heartbeat","at":1}',
                f'{{"type":"ack","seq":{seq}}}',
                f'{{"seq":{seq},"type":"ack"}}',
                f'{{"type":"nack","seq":{seq}}}',
                f'{{"type":"nack","seq":{seq},"reason":"{reason}"}}',
                f'{{"type":"auth","token":"{reason}"}}',
            )
        )

    def object(self) -> str:
        """An object of the usual keys and unusual values, some of them twice."""
        members = [f'"type":"{self._random.choice(_TYPES)}"'] if self._random.random() < 0.9 else []
        others = range(self._random.randrange(4))
        members += [f'"{self._random.choice(_KEYS)}":{self.value(2)}' for _ in others]
        self._random.shuffle(members)
        return "{" + ",".join(members) + "}"

    def value(self, depth: int) -> str:
        """Any value, at most so deep."""
        one = self._random.random()
        if depth and one < 0.15:
            return "[" + ",".join(self.value(depth - 1) for _ in range(self._random.randrange(4))) + "]"
        if depth and one < 0.3:
            return self.object()
        if one < 0.6:
            return self._random.choice(_NUMBERS)
        if one < 0.9:
            return f'"{self._random.choice(_TEXTS)}"'
        return self._random.choice(_OTHERS)

    def _damaged(self, text: str) -> str:
        """The same with a few letters gone, doubled or exchanged."""
        for _ in range(self._random.randrange(1, 4)):
            at = self._random.randrange(len(text) + 1)
            match self._random.randrange(4):
                case 0:
                    text = text[:at] + text[at + 1 :]
                case 1:
                    text = text[:at] + self._random.choice(_JUNK) + text[at:]
                case 2:
                    text = text[:at] + self._random.choice(_JUNK) + text[at + 1 :]
                case _:
                    text = text[:at]
        return text

    def _large(self) -> str:
        """What takes long, deep or wide, within the size of a message."""
        size = self._random.choice((1000, 20_000))
        inner = self._random.choice(
            (
                "[" * size + "]" * size,
                "[" * size,
                '{"a":' * size + "1" + "}" * size,
                '"' + "x" * size + '"',
                '"' + "\\u0000" * size + '"',
                "[" + "1," * size + "1]",
                "{" + ",".join(f'"k{n}":1' for n in range(size // 4)) + "}",
                "9" * size,
                "1e" + "9" * size,
                "\\" * size,
            )
        )
        return self._random.choice(
            (inner, f'{{"type":"ping","a":{inner}}}', f'{{"type":"nack","seq":1,"reason":{inner}}}')
        )
