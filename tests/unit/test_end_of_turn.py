"""What one turn of the loop sends is written at its end, for every socket by itself."""

import asyncio

import pytest

from app.gateway.uvicorn_host.end_of_turn import EndOfTurn


class Socket:
    """One that notes what it is told, and may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails
        self.told: list[str] = []

    def flush(self) -> None:
        self.told.append("flush")
        if self._fails:
            raise OSError("no")

    def abort(self) -> None:
        self.told.append("abort")
        raise OSError("nor that")


async def test_sockets_write_at_the_end_of_the_turn_and_not_before() -> None:
    """Each once; whoever asks in the next turn is called in that."""
    end_of_turn, first, second = EndOfTurn(asyncio.get_running_loop()), Socket(), Socket()
    end_of_turn.add(first)
    end_of_turn.add(second)
    assert first.told == second.told == []

    await asyncio.sleep(0)
    assert first.told == second.told == ["flush"]

    end_of_turn.add(first)
    await asyncio.sleep(0)
    assert first.told == ["flush", "flush"]
    assert second.told == ["flush"]


async def test_one_that_cannot_write_is_dropped_and_the_others_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However early it asked."""
    end_of_turn, broken, sound = EndOfTurn(asyncio.get_running_loop()), Socket(fails=True), Socket()
    end_of_turn.add(broken)
    end_of_turn.add(sound)

    await asyncio.sleep(0)

    assert broken.told == ["flush", "abort"]
    assert sound.told == ["flush"]
    assert "a connection could not be written to" in caplog.text
