"""What processes tell each other of users with many connections."""

from app.gateway.elsewhere import TOLD_AT_MOST, Elsewhere


def users(**counts: int) -> dict[str, range]:
    return {name: range(count) for name, count in counts.items()}


def test_a_process_alone_tells_of_those_at_the_limit() -> None:
    """Nobody listens, and nobody needs to know of others."""
    assert Elsewhere(20).crowds(users(ada=20, bob=19)) == {"ada": 20}


def test_the_more_processes_the_fewer_connections_are_worth_telling() -> None:
    """Down to two: one each is what most users have."""
    elsewhere = Elsewhere(20)
    told = []
    for others in (1, 3, 50):
        elsewhere.heard([{}] * others)
        told.append(elsewhere.crowds(users(ada=10, bob=5, eve=2, max=1)))

    assert told == [{"ada": 10}, {"ada": 10, "bob": 5}, {"ada": 10, "bob": 5, "eve": 2}]


def test_what_the_others_told_is_summed_and_replaced_by_what_they_tell_next() -> None:
    """A process that is gone tells nothing any more."""
    elsewhere = Elsewhere(20)
    elsewhere.heard([{"ada": 10, "bob": 5}, {"ada": 4}])
    before = elsewhere.of("ada"), elsewhere.of("bob"), elsewhere.of("eve")
    elsewhere.heard([{"ada": 4}])

    assert before == (14, 5, 0)
    assert (elsewhere.of("ada"), elsewhere.of("bob")) == (4, 0)


def test_those_with_the_most_are_told_of_when_there_are_too_many() -> None:
    """What a process tells is bounded."""
    elsewhere = Elsewhere(2)
    told = elsewhere.crowds({str(number): range(2 + number) for number in range(2 * TOLD_AT_MOST)})

    assert len(told) == TOLD_AT_MOST
    assert min(told.values()) == 2 + TOLD_AT_MOST
