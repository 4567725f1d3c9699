"""Whose a token is, whether it was revoked, and when its end is told."""

import pytest

from app.core.actions import Authenticate, Authenticated, Close, Complain, ExpiresSoon
from app.core.close_codes import CloseCode
from app.core.expiry import NOTICE, Expiry
from app.core.flight import Limits, Pace
from app.core.identity import Identity, NotAllowed
from app.core.inbound import NO_TOKEN, ONE_AT_A_TIME, Rejected
from app.core.session import Session


@pytest.mark.parametrize(
    ("issued_at", "revoked_before", "is_revoked"),
    [
        (100, None, False),
        (None, None, False),
        (None, 100.5, True),
        (99, 100.0, True),
        (99, 100.9, True),
        (100, 100.0, False),
        (100, 100.9, False),
        (101, 100.9, False),
        (100.4, 100.5, True),
        (100.6, 100.5, False),
    ],
)
def test_a_token_is_revoked_when_it_was_surely_issued_before(
    issued_at: float | None, revoked_before: float | None, is_revoked: bool
) -> None:
    """In whole seconds that of the revocation's own second may be the next one; fractions are exact."""
    assert Identity("ada", issued_at, 1e9).is_revoked(revoked_before) is is_revoked


def test_a_token_acts_for_its_own_user() -> None:
    """Who need not be named."""
    identity = Identity("ada", None, 1e9)

    assert identity.acts_for(None) == identity.acts_for("ada") == "ada"
    for other in ("bob", "", "Ada", "ada "):
        with pytest.raises(NotAllowed):
            identity.acts_for(other)


def test_the_end_is_told_once_before_it_comes() -> None:
    """A minute before; at once where there is no minute left."""
    expiry = Expiry(1000.0)

    assert expiry.deadline() == 1000 - NOTICE
    assert not expiry.warns(1000 - NOTICE - 1)
    assert expiry.warns(1000 - NOTICE)
    assert not expiry.warns(1000 - NOTICE)
    assert expiry.deadline() == 1000
    assert not expiry.is_over(999.9)
    assert expiry.is_over(1000)


@pytest.mark.parametrize(("lives", "told_after"), [(3600, 3600 - NOTICE), (10, 5), (100, 50), (0.1, 0.05)])
def test_a_new_token_of_a_short_life_is_told_of_in_its_middle(lives: float, told_after: float) -> None:
    """Else a client that renews when it is told would do nothing else."""
    expiry = Expiry(1000.0)
    assert expiry.warns(999)

    expiry.renew(999 + lives, 999)

    assert expiry.deadline() == pytest.approx(999 + told_after)


def session(expires_at: float | None = 1000.0) -> Session:
    made = Session(Limits(), Pace(), expires_at=expires_at)
    made.open(0.0)
    return made


AUTH = '{"type":"auth","token":"x.y.z"}'


def test_a_session_ends_with_its_token() -> None:
    """It is told before, and closed with 4401."""
    one = session()

    assert ExpiresSoon(NOTICE) in one.tick(1000 - NOTICE)
    (close,) = one.tick(1000.0)
    assert isinstance(close, Close)
    assert close.code == CloseCode.UNAUTHENTICATED


def test_a_session_goes_on_with_a_new_token() -> None:
    """Which is looked at by somebody else, one at a time."""
    one = session()

    assert one.receive(AUTH, 1.0) == [Authenticate("x.y.z")]
    assert one.receive(AUTH, 1.0) == [Complain(ONE_AT_A_TIME)]
    assert one.renewed(2000.0, 10.0) == [Authenticated(1990.0)]
    assert not any(isinstance(each, Close) for each in one.tick(1000.0))
    assert one.receive(AUTH, 1001.0) == [Authenticate("x.y.z")]


def test_a_session_keeps_its_token_when_the_new_one_is_bad() -> None:
    """And its client is told; too many are too many bad messages."""
    one = session()
    problem = Rejected("unauthorized", "no")

    assert one.receive('{"type":"auth"}', 1.0) == [Complain(NO_TOKEN)]
    one.receive(AUTH, 1.0)
    assert one.not_renewed(problem, 1.0) == [Complain(problem)]
    (close,) = one.tick(1000.0)
    assert isinstance(close, Close)


def test_nothing_happens_to_a_session_that_has_ended() -> None:
    """The answer to its token came too late."""
    one = session()
    one.receive(AUTH, 1.0)
    one.close(CloseCode.GOING_AWAY, "over")

    assert one.renewed(2000.0, 2.0) == one.not_renewed(NO_TOKEN, 2.0) == one.receive(AUTH, 2.0) == []
    assert one.deadline() == float("inf")
