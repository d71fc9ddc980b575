"""Signatures: given, taken back and shown."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest

from phyxius.adapters.sqlite import open_file_stores
from phyxius.fp import ok
from phyxius.migration import attestation, schema_applied
from tests.cli.support import HOSTILE, Ended, Quotes, Shop, assert_tame, in_memory, on_terminal, phyxius, quotes
from tests.places import FILE

DAY = timedelta(days=1)
TO_FLIP = ("quotes", "--to", "flip")
STORY = """\
quotes
  flip: parity_signed  a signature by 1 person
    2026-01-01 12:00:00 UTC  ada: compared 2,000 rows (revoked 2026-01-03 12:00:00 UTC by dora: wrong table)
    2026-01-01 12:00:00 UTC  bob (expired 2026-01-02 12:00:00 UTC)
    2026-01-01 12:00:00 UTC  cleo (counts)
"""
NARROW = """\
quotes
  flip: parity_signed
  a signature by 1 person
    2026-01-01 12:00:00 UTC
    ada: compared 2,000 rows (revoked
    2026-01-03 12:00:00 UTC by dora:
    wrong table)
    2026-01-01 12:00:00 UTC
    bob (expired 2026-01-02 12:00:00
    UTC)
    2026-01-01 12:00:00 UTC
    cleo (counts)
"""


def test_the_life_of_signatures(quotes_in: Quotes) -> None:
    """Given by whoever runs it or says who; one expires, one is revoked, one counts."""
    quotes_in.make()
    said = "for parity_signed, the way of quotes into flip"
    assert phyxius("sign", *TO_FLIP, "--note", "compared 2,000 rows") == Ended(0, f"SIGNED  ada {said}\n")
    until = ", until 2026-01-02 12:00:00 UTC"
    assert phyxius("sign", *TO_FLIP, "--as", "bob", "--valid-for", "1d") == Ended(0, f"SIGNED  bob {said}{until}\n")
    given = phyxius("sign", *TO_FLIP, "--as", "cleo", "--source", "parity_signed", "--json").told
    assert given == {
        "migration": "quotes",
        "to_phase": "flip",
        "source": "parity_signed",
        "signer": "cleo",
        "note": "",
        "signed_at": "2026-01-01T12:00:00+00:00",
        "expires_at": None,
        "revoked_at": None,
        "revoked_by": None,
        "revoked_why": None,
        "state": "counts",
    }
    quotes_in.clock.advance_by(2 * DAY)
    taken = Ended(0, "REVOKED  1 of ada for parity_signed of flip\n")
    assert phyxius("revoke", *TO_FLIP, "--by", "dora", "--note", "wrong table") == taken
    assert phyxius("signatures", "quotes") == Ended(0, STORY)
    assert on_terminal("signatures", "quotes", width=120).seen == STORY
    assert on_terminal("signatures", "quotes", width=40).seen == NARROW
    told = phyxius("signatures", "quotes", "--to", "flip", "--source", "parity_signed", "--json").told
    assert told["migration"] == "quotes"
    assert [(each["signer"], each["state"]) for each in told["signatures"]] == [
        ("ada", "revoked"),
        ("bob", "expired"),
        ("cleo", "counts"),
    ]
    assert told["signatures"][0]["revoked_at"] == "2026-01-03T12:00:00+00:00"
    assert (told["signatures"][0]["revoked_by"], told["signatures"][0]["revoked_why"]) == ("dora", "wrong table")
    assert phyxius("revoke", *TO_FLIP, "--signer", "cleo", "--json").told == {
        "migration": "quotes",
        "to_phase": "flip",
        "source": "parity_signed",
        "signer": "cleo",
        "revoked": 1,
    }


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_nothing_to_revoke(quotes_in: Quotes, as_json: tuple[str, ...]) -> None:
    """It says whose signature is not there."""
    quotes_in.at("dual_write")
    ended = phyxius("revoke", *TO_FLIP, *as_json)
    told = "ada has no signature for parity_signed of flip that stands; see `phyxius signatures quotes`"
    assert (ended.exit, ended.err) == (2, f"phyxius: {told}\n")
    if as_json:
        assert ended.told == {"error": {"type": "CommandError", "message": told}}


def test_nothing_to_revoke_of_a_name_that_a_shell_would_split(quotes_in: Quotes, shop: Shop) -> None:
    """The command that it names can be run as it stands."""
    flip = quotes_in.app.spec.phases["flip"].evidence
    shop.has(quotes_in.migration("ada's quotes", expand={}, flip=flip))
    quotes_in.make()
    assert phyxius("status").exit == 0
    ended = phyxius("revoke", "ada's quotes", "--to", "flip")
    assert ended.exit == 2
    (command,) = re.findall("`(.*)`", ended.err)
    assert shlex.split(command) == ["phyxius", "signatures", "ada's quotes"]


@pytest.mark.parametrize("command", ["sign", "revoke"])
def test_a_step_that_is_taken(quotes_in: Quotes, command: str) -> None:
    """Nothing can be signed or taken back any more."""
    quotes_in.at("flip")
    ended = phyxius(command, *TO_FLIP)
    assert ended.exit == 2
    assert "entered already" in ended.err
    assert ended.err.count("\n") == 1


def test_signatures_of_an_earlier_order(quotes_in: Quotes, shop: Shop) -> None:
    """They count no longer once the order is amended."""
    quotes_in.at("dual_write")
    phyxius("sign", *TO_FLIP)
    flip = quotes_in.app.spec.phases["flip"].evidence
    shop.has(quotes_in.migration(expand={}, dual_write={}, flip=flip, last={}))
    assert phyxius("amend", "quotes", "--why", "a better name", "--yes").exit == 0
    assert "ada (for an earlier order of the phases)\n" in phyxius("signatures", "quotes").out
    assert phyxius("signatures", "quotes", "--json").told["signatures"][0]["state"] == "overtaken"


NOBODY = """\
quotes
  flip: parity_signed  a signature by 1 person
    nobody has signed
"""
NONE = """\
quotes
  it asks for no signatures there that are kept in these stores
"""


def test_no_signatures(quotes_in: Quotes) -> None:
    """None yet, or none that are asked for."""
    quotes_in.make()
    assert phyxius("signatures", "quotes") == Ended(0, NOBODY)
    assert phyxius("signatures", "quotes", "--to", "contract") == Ended(0, NONE)
    assert phyxius("signatures", "quotes", "--to", "contract", "--json").told["signatures"] == []


def test_names_that_are_wrong(quotes_in: Quotes) -> None:
    """Each error says which there are."""
    quotes_in.at("dual_write")
    phases = "it has: expand, dual_write, flip, contract"
    sources = "parity_signed"
    for command in ("sign", "revoke", "signatures"):
        told = f"phyxius: quotes has no phase 'flipp'; {phases}\n"
        assert phyxius(command, "quotes", "--to", "flipp") == Ended(2, "", told)
        told = "phyxius: there is no migration 'orders'; there are: quotes\n"
        assert phyxius(command, "orders", "--to", "flip") == Ended(2, "", told)
    for command in ("sign", "revoke"):
        told = f"phyxius: flip asks for signatures for {sources}, not for parity\n"
        assert phyxius(command, *TO_FLIP, "--source", "parity") == Ended(2, "", told)
        told = "phyxius: contract of quotes asks for no signatures\n"
        assert phyxius(command, "quotes", "--to", "contract") == Ended(2, "", told)
        assert "Missing option '--to'" in phyxius(command, "quotes").err
    told = "phyxius: quotes has no source 'parity' that asks for signatures; it has: parity_signed\n"
    assert phyxius("signatures", "quotes", "--source", "parity") == Ended(2, "", told)
    assert phyxius("signatures", "quotes", "--source", "parity", "--json").told["error"]["message"] == told[9:-1]


def test_several_sources(quotes_in: Quotes, shop: Shop) -> None:
    """One has to be named; each is shown."""
    signed_off = quotes_in.stores.attestations.signed_off
    shop.has(
        quotes_in.migration(
            expand={"first": signed_off()}, flip={"dba": signed_off(), "qa": signed_off(2, ["ada", "bob"])}
        )
    )
    quotes_in.make()
    told = "phyxius: flip asks for signatures for first, dba, qa; say which with --source\n"
    assert phyxius("sign", *TO_FLIP) == Ended(2, "", told)
    assert phyxius("sign", *TO_FLIP, "--source", "qa").exit == 0
    shown = phyxius("signatures", "quotes", "--source", "qa").out
    assert "flip: qa  signatures by 2 people of ada, bob" in shown
    assert "dba" not in shown
    refused = phyxius("sign", *TO_FLIP, "--source", "qa", "--as", "eve")
    assert refused.exit == 2
    assert "'eve' is not among those who may sign: ada, bob" in refused.err


def test_signatures_that_are_elsewhere(shop: Shop, tmp_path: Path) -> None:
    """A check of one's own may look anywhere; signing there is none of ours."""

    def ticket() -> object:
        """The ticket is approved."""
        return ok(1)

    shop.has(in_memory(expand={}, flip={"ticket": attestation(ticket), "schema": schema_applied(ticket)}))
    told = 'ticket of flip looks elsewhere than in these stores ("The ticket is approved"); sign there'
    assert phyxius("sign", *TO_FLIP, "--source", "ticket") == Ended(2, "", f"phyxius: {told}\n")
    told = "phyxius: flip of quotes asks for no signatures\n"
    assert phyxius("sign", *TO_FLIP) == Ended(2, "", told)
    assert phyxius("signatures", "quotes") == Ended(0, NONE)
    assert phyxius("signatures", "quotes", "--source", "ticket").exit == 0


def test_signatures_over_a_phase_in_memory(shop: Shop, tmp_path: Path) -> None:
    """Signatures may be kept where no order of phases is."""
    stores = open_file_stores(tmp_path / "signatures.db")
    shop.has(in_memory(expand={}, flip={"dba": stores.attestations.signed_off()}))
    assert "nobody has signed" in phyxius("signatures", "quotes", "--create").out
    unknown = phyxius("sign", *TO_FLIP)
    assert unknown.exit == 2
    assert "does not know this migration yet" in unknown.err


def test_hostile_texts(quotes_in: Quotes, shop: Shop) -> None:
    """Who signs and what they write may be anything."""
    hostile = HOSTILE.replace("\x00", "")
    evidence = {hostile: quotes_in.stores.attestations.signed_off()}
    shop.has(quotes_in.migration(expand={}, **{hostile: evidence}))
    quotes_in.make()
    step = ("quotes", "--to", hostile)
    assert_tame(phyxius("sign", *step, "--as", hostile, "--note", hostile))
    assert_tame(phyxius("signatures", "quotes"))
    assert_tame(on_terminal("signatures", "quotes", width=300))
    assert phyxius("signatures", "quotes", "--json").told["signatures"][0]["note"] == hostile
    assert_tame(phyxius("revoke", *step, "--signer", hostile))
    assert_tame(phyxius("revoke", *step, "--signer", hostile))


def test_a_name_that_is_empty(shop: Shop) -> None:
    """A variable that is not set signs for nobody."""
    with quotes(FILE, shop.directory) as place:
        place.make()
        shop.has(place.app)
        told = "phyxius: a name is empty; say who, or leave the option out for your user name\n"
        assert phyxius("sign", "quotes", "--to", "flip", "--as", " ") == Ended(2, "", told)
        assert phyxius("revoke", "quotes", "--to", "flip", "--by", "") == Ended(2, "", told)
