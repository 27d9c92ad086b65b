"""Who may see and change what, by tables: each line one request, and what is decided."""

from __future__ import annotations

import pytest

from turntable.serve.security import Keeper, host_is_ours, is_loopback, is_same_origin, token_matches


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.4", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("127.0.0.1:8650", True),
        ("localhost:8650", True),
        ("LOCALHOST:8650", True),
        ("[::1]:8650", True),
        ("127.0.0.1", False),  # which is port 80
        ("[::1]", False),
        ("127.0.0.1:8651", False),
        ("evil.example:8650", False),  # its name was made to lead here
        ("127.0.0.1.evil.example:8650", False),
        ("localhost.evil.example:8650", False),
        ("evil.example", False),
        ("127.0.0.1:8650:8650", False),
        ("127.0.0.1:8650/", False),
        ("user@127.0.0.1:8650", False),
        ("2130706433:8650", False),
        ("", False),
        (None, False),
    ],
)
def test_on_loopback_only_this_machines_names_are_answered_to(header: str | None, ours: bool) -> None:
    assert host_is_ours(header, 8650, loopback=True) is ours


@pytest.mark.parametrize(
    ("header", "ours"), [("gpu-server:8650", True), ("10.0.0.3:80", True), ("a b", False)]
)
def test_elsewhere_any_name_will_do_since_the_token_is_needed(header: str, ours: bool) -> None:
    assert host_is_ours(header, 8650, loopback=False) is ours


OURS = "127.0.0.1:8650"


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"origin": f"http://{OURS}", "sec-fetch-site": "same-origin"}, True),
        ({"origin": f"http://{OURS}"}, True),  # what is no secure context has no Sec-Fetch-Site
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, True),  # under a stricter Referrer-Policy
        ({"origin": f"https://{OURS}"}, True),  # behind a proxy that ends TLS
        ({}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),  # another program of this machine
        ({"origin": "http://localhost:8650"}, False),
        ({"origin": f"http://{OURS}.evil.example"}, False),
        ({"origin": f"http://evil.example/{OURS}"}, False),
        ({"origin": f"http://x@{OURS}"}, False),
        ({"origin": f"file://{OURS}"}, False),
        ({"origin": "http://["}, False),
        ({"origin": f"http://{OURS}", "sec-fetch-site": "same-site"}, False),
        ({"origin": f"http://{OURS}", "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_changes_come_from_our_own_pages(headers: dict[str, str], same: bool) -> None:
    assert is_same_origin({"host": OURS, **headers}) is same


@pytest.mark.parametrize(
    ("given", "right"),
    [("0123456789abcdef", True), ("0123456789abcdeg", False), ("", False), ("ключ\udce9", False)],
)
def test_tokens_are_compared_whole(given: str, right: bool) -> None:
    assert token_matches(given, "0123456789abcdef") is right


def test_a_session_is_known_to_the_process_that_gave_it_and_to_no_other() -> None:
    keeper, other = Keeper(8650), Keeper(8650)
    session = keeper.new_session()
    number, _, signature = session.partition(".")
    assert keeper.is_session(session)
    assert not other.is_session(session)
    forged = [
        None,
        "",
        ".",
        number,
        f"{number}.",
        f"x{number}.{signature}",
        f"{number}.{signature[:-1]}0g",
        "é.ü",
    ]
    assert not any(keeper.is_session(text) for text in forged)
    assert keeper.new_session() != session


def test_a_csrf_token_belongs_to_one_session() -> None:
    keeper = Keeper(8650)
    mine, other = keeper.new_session(), keeper.new_session()
    assert keeper.may_change(mine, keeper.csrf(mine))
    assert not keeper.may_change(mine, keeper.csrf(other))
    for given in (None, "", mine, keeper.csrf(mine)[:-1], "é"):
        assert not keeper.may_change(mine, given)
    assert not keeper.may_change(None, keeper.csrf(mine))
    assert not keeper.may_change("made.up", keeper.csrf("made.up"))  # a session that we didn't give


def test_servers_on_one_machine_keep_their_cookies_apart() -> None:
    assert Keeper(8650).cookie != Keeper(8651).cookie
