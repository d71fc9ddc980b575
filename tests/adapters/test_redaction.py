"""Keeping secrets out of what is stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters._redaction import redacted

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "text,kept",
    [
        (f"postgresql://ada:{SECRET}@db:5432/quotes failed", "postgresql://***@db:5432/quotes failed"),
        (f"redis://:{SECRET}@cache/0", "redis://***@cache/0"),
        (f"postgresql://ada:{SECRET}", "postgresql://***"),
        (f"cannot reach postgresql://ada:{SECRET}…", "cannot reach postgresql://***"),
        (f"postgresql://ada:{SECRET}… was cut off", "postgresql://***… was cut off"),
        ("postgresql://ada:123456", "postgresql://***"),
        ("postgresql://ada:5432x", "postgresql://***"),
        (f"password={SECRET} host=db", "password=*** host=db"),
        (f"Passwd: {SECRET}, next", "Passwd: ***, next"),
        (f'{{"db_password": "{SECRET} and more", "rows": 3}}', '{"db_password": ***, "rows": 3}'),
        (f"{{'api_key': '{SECRET} and more'}}", "{'api_key': ***}"),
        (f"?access_token={SECRET}&page=2", "?access_token=***&page=2"),
        (f"AWS_SECRET_ACCESS_KEY={SECRET}", "AWS_SECRET_ACCESS_KEY=***"),
        (f"x-api-key: {SECRET}; q", "x-api-key: ***; q"),
        (f"client-secret={SECRET})", "client-secret=***)"),
        (f"session_id={SECRET}", "session_id=***"),
        (f"sent Bearer {SECRET} to it", "sent Bearer *** to it"),
        ("basic dXNlcjpwYXNzd29yZA== x", "basic *** x"),
        ("key AKIAABCDEFGHIJKLMNOP.", "key ***."),
        (f"jwt eyJhbGciOiJIUzI1.{SECRET}.{SECRET} end", "jwt *** end"),
        (f"sk-{SECRET} and ghp_{SECRET} and xoxb-{SECRET}", "*** and *** and ***"),
        (f"a -----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY----- b", "a *** b"),
        (f"a -----BEGIN PRIVATE KEY-----\n{SECRET}\ncut off", "a ***"),
        (f"(err) [SQL: INSERT] [parameters: ('{SECRET}',\n'b')]", "(err) [SQL: INSERT] [parameters: ***]"),
    ],
)
def test_secrets_of_the_usual_shapes_are_taken_out(text: str, kept: str) -> None:
    """What surrounds the secret stays readable."""
    assert redacted(text) == kept
    assert SECRET not in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no such table: quotes",
        "connection to server at 10.0.0.1, port 5432 failed",
        "the passwords table is empty",
        "https://example.org/quotes?page=2",
        "cannot reach http://example.org:8080",
        "cannot reach http://example.org:8080…",
        "http://example.org:8080/quotes, then http://example.org",
        "ada@example.org: mailbox full",
        "12 rows, 3 tokens",
        "KeyError: 'quote'",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    """An error stays what it was, so that somebody can act on it."""
    assert redacted(text) == text


def test_long_texts_are_cut() -> None:
    """At 500 characters, or at as many as are asked for, with a sign that something is missing."""
    assert redacted("x" * 500) == "x" * 500
    assert redacted("x" * 501) == "x" * 499 + "…"
    assert redacted("x" * 11, 10) == "x" * 9 + "…"


@given(st.text(), st.integers(1, 600))
def test_it_is_never_longer_than_asked(text: str, longest: int) -> None:
    """Whatever is put in the place of a secret counts, too."""
    assert len(redacted(text, longest)) <= longest


def test_a_secret_is_taken_out_before_the_text_is_cut() -> None:
    """The cut does not leave a part of a secret that is then not recognized."""
    text = "x" * 480 + f" password={SECRET * 10}"
    assert redacted(text) == "x" * 480 + " password=***"


PIECES = ["password=", "a", "://", "://a:", "-----BEGIN ", "eyJ", "eyJ-", "Bearer ", '"', "token", "token ", " ", "sk-"]


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_it_long(piece: str) -> None:
    """Time grows with the text and not with its square: such a text of a megabyte would take minutes."""
    assert len(redacted(piece * (1_000_000 // len(piece)), 4_000)) <= 4_000
