from federation.network.liveness import ALIVE_S, Liveness
from federation.rules.keys import PrivateKey

PEER = PrivateKey(b"p" * 32).public


def test_a_peer_is_alive_for_some_seconds_after_it_was_heard() -> None:
    liveness = Liveness()
    assert liveness.silence_s(PEER, 0.0) == float("inf")
    liveness.heard(PEER, 100.0)
    assert liveness.alive(100.0 + ALIVE_S) == {PEER}
    assert liveness.alive(100.1 + ALIVE_S) == frozenset()
    assert liveness.silence_s(PEER, 101.5) == 1.5


def test_an_older_sign_of_life_does_not_replace_a_newer_one() -> None:
    liveness = Liveness()
    liveness.heard(PEER, 100.0)
    liveness.heard(PEER, 50.0)
    assert liveness.silence_s(PEER, 100.0) == 0.0


def test_a_forgotten_peer_is_gone() -> None:
    liveness = Liveness()
    liveness.heard(PEER, 1.0)
    liveness.forget(PEER)
    liveness.forget(PEER)
    assert liveness.alive(1.0) == frozenset()
