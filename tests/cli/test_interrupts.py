"""What is told where somebody, or the application, breaks a command off."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from phyxius.blocking import SyncMigration, run
from phyxius.cli._exits import Terminated
from phyxius.cli._screen import Screen
from phyxius.clock import create_controlled_clock
from phyxius.handler import HandlerEvent
from phyxius.journal import Journal, JournalOverflowError
from phyxius.migration import (
    EvidenceSnapshot,
    create_memory_phase_store,
    create_migration,
    define_migration,
)
from tests.cli.support import (
    START,
    Ended,
    Quotes,
    Shop,
    advance,
    in_memory,
    interrupt_main,
    phyxius,
)
from tests.places import FilePlace


class Interrupted:
    """A phase store that interrupts whoever runs the command at the commit, before or after it happens."""

    def __init__(self, inner: Any, *, after: bool, then: Any = None) -> None:
        self._inner, self._after, self._then = inner, after, then
        self.current = inner.current

    async def try_advance(self, *args: Any) -> Any:
        answer = await self._inner.try_advance(*args) if self._after else None
        if self._then is not None:
            self.current = self._then
        interrupt_main()
        return answer or await self._inner.try_advance(*args)


def interrupted(**options: Any) -> Any:
    clock = create_controlled_clock(START)
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}, "contract": {}})
    store: Any = Interrupted(create_memory_phase_store(initial="expand", clock=clock), **options)
    return create_migration(spec, journal=Journal[Any](clock=clock), phase_store=store, single_process=True)


def cut_off() -> Any:
    """A migration whose store interrupts whoever runs the command, and then fails at the commit."""
    migration = interrupted(after=False)

    async def lost(*_: object) -> Any:
        interrupt_main()
        raise ConnectionError("the line is dead")

    migration.phase_store.try_advance = lost
    return migration


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_at_the_commit(shop: Shop, after: bool) -> None:
    """A commit is never cut in two, and what became of it is told."""
    migration = interrupted(after=after)
    shop.has(migration)
    told = "interrupted: it moved before that, quotes is at flip"
    assert advance("flip") == Ended(130, "quotes  expand → flip\n", f"phyxius: {told}\n")
    assert run(migration.current_phase()) == "flip"


def test_an_interrupt_after_which_nothing_can_be_read(shop: Shop) -> None:
    """It says where to look."""

    async def gone() -> str:
        raise OSError("the line is dead")

    shop.has(interrupted(after=True, then=gone))
    told = "interrupted: it moved before that, look where quotes is: phyxius status quotes"
    assert advance("flip") == Ended(130, "quotes  expand → flip\n", f"phyxius: {told}\n")


def test_an_interrupt_at_a_commit_of_which_nothing_is_known(shop: Shop) -> None:
    """That it is where it was does not prove that it stays there: the commit may still be on its way."""
    shop.has(cut_off())
    ended = advance("flip")
    assert ended.exit == 6
    assert ended.err == (
        "phyxius: interrupted: the phase store failed in try_advance (ConnectionError: the line is dead); whether the "
        "migration moved is unknown; look where it is before anything else; phyxius status quotes\n"
    )


def test_an_interrupt_while_that_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more changes nothing of how it ends."""
    shop.has(cut_off())
    with monkeypatch.context() as patch:
        patch.setattr(Screen, "error", lambda *_: patch.undo() or interrupt_main())
        assert advance("flip") == Ended(6, "quotes  expand → flip\n")


def test_an_interrupt_at_a_refusal(shop: Shop) -> None:
    """Somebody else was first, and the phase that is read then is not told as moved by this."""
    migration = interrupted(after=False)
    inner = migration.phase_store._inner

    async def second(*args: Any) -> Any:
        await inner.try_advance("expand", "flip", EvidenceSnapshot("rival", {}))
        interrupt_main()
        return await inner.try_advance(*args)

    migration.phase_store.try_advance = second
    shop.has(migration)
    assert advance("flip").err == "phyxius: interrupted: nothing moved, quotes is at flip\n"


def test_an_interrupt_without_an_audit(shop: Shop) -> None:
    """Where the journal does not take it, nothing is claimed."""
    migration = interrupted(after=True)

    def full(entry: object) -> None:
        raise JournalOverflowError(1)

    migration.journal.append = full
    shop.has(migration)
    told = "interrupted: whether quotes moved is unknown; look with phyxius status quotes"
    assert advance("flip") == Ended(6, "quotes  expand → flip\n", f"phyxius: {told}\n")


def test_another_call_of_the_same_process(shop: Shop) -> None:
    """The application may advance the migration itself, and what came of that is not told as of this."""
    migration = interrupted(after=True)
    append = migration.journal.append

    def both(event: HandlerEvent) -> Any:
        answer = append(event)
        refusal = {"type": "CAS_LOST", "message": "", "failures": {}, "errors": {}}
        append(attrs.evolve(event, outcome="failure", observed={"refusal": refusal}, correlation_id=None))
        return answer

    migration.journal.append = both
    shop.has(migration)
    assert advance("flip").err == "phyxius: interrupted: it moved before that, quotes is at flip\n"


def test_an_application_that_exits(shop: Shop) -> None:
    """Its exit code is its own, and not that of the command."""
    migration = in_memory()

    def leave(entry: object) -> None:
        raise SystemExit(0)

    migration.journal.subscribe(leave)
    shop.has(migration)
    ended = advance("flip", "--yes")
    told = "whether quotes moved is unknown; look with phyxius status quotes"
    assert (ended.exit, ended.err) == (6, f"phyxius: ended by the application: {told}\n")


def test_an_exit_that_the_application_swallows(shop: Shop) -> None:
    """It is told by the command, before the application hears of it."""

    async def leave() -> str:
        raise SystemExit(0)

    @contextmanager
    def app() -> Iterator[Any]:
        migration = in_memory()
        store: Any = migration.phase_store
        store.current = leave
        with suppress(BaseException):
            yield migration

    shop.has(app)
    assert phyxius("diagram", "quotes") == Ended(1, "", "phyxius: ended by the application; nothing is torn\n")


def test_an_interrupt_that_the_application_swallows(shop: Shop) -> None:
    """The command ends all the same, before it does anything."""
    migration = in_memory()

    def app() -> Any:
        with suppress(KeyboardInterrupt):
            interrupt_main()
        return migration

    shop.has(app)
    assert advance("flip", "--yes") == Ended(130, "", "phyxius: interrupted; nothing is torn\n")
    assert run(migration.current_phase()) == "expand"


def test_an_interrupt_before_the_step_is_tried(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is known that nothing moved."""
    shop.has(in_memory())
    monkeypatch.setattr(Screen, "progress", lambda *_: interrupt_main())
    ended = advance("flip", "--yes")
    assert (ended.exit, ended.err) == (130, "phyxius: interrupted: nothing moved\n")


@pytest.mark.parametrize(
    "place, args",
    [
        ("_advance.ask", ("advance", "quotes", "--to", "contract")),
        ("_upkeep.ask", ("amend", "quotes", "--why", "a check first")),
        ("_upkeep.ask", ("prune", "--older-than", "90d")),
        ("_signatures.as_named", ("sign", "quotes", "--to", "contract", "--as", "ada")),
        ("_signatures.as_named", ("revoke", "quotes", "--to", "contract", "--signer", "ada", "--by", "bob")),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_an_interrupt_that_is_swallowed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, args: tuple[str, ...]
) -> None:
    """As in a finalizer that runs just then: nothing is written after it."""
    quotes = Quotes(FilePlace(tmp_path / "quotes.db"))
    quotes.app = quotes.migration(expand={}, flip={}, contract={"signed": quotes.stores.attestations.signed_off()})
    quotes.at("flip")
    shop.has(quotes.migration(expand={}, flip={}, check={}, contract={}) if "amend" in args else quotes.app)
    before = {**quotes.place.contents(), "recorders": None}

    def swallow(*given: Any) -> Any:
        with suppress(KeyboardInterrupt):
            interrupt_main()
        return given[0]

    monkeypatch.setattr(f"phyxius.cli.{place}", swallow)
    ended = phyxius(*args)
    assert (ended.exit, ended.out.count("SIGNED") + ended.out.count("PRUNED")) == (130, 0)
    assert {**quotes.place.contents(), "recorders": None} == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_while_something_is_written(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """It may have been written or not, and so it is told."""
    quotes = Quotes(FilePlace(tmp_path / "quotes.db"))
    quotes.at("flip")
    shop.has(quotes.app)
    kind = type(quotes.stores.attestations)
    sign = kind.sign

    async def sign_and_interrupt(*args: Any, **options: Any) -> Any:
        if after:
            await sign(*args, **options)
        interrupt_main()
        await asyncio.Event().wait()

    monkeypatch.setattr(kind, "sign", sign_and_interrupt)
    quotes.place.change("UPDATE migrations SET phase = 'dual_write'")
    told = "phyxius: interrupted: whether that was written is unknown; look at it before you say it again\n"
    assert phyxius("sign", "quotes", "--to", "flip") == Ended(6, "", told)
    assert len(quotes.place.rows("SELECT * FROM signatures")) == after


def test_an_error_of_a_signal_handler_of_the_application(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come when the step is taken, as of a watchdog; what became of the step is told all the same."""
    migration, real = in_memory(), SyncMigration.advance

    def advance_and_raise(*args: Any, **options: Any) -> Any:
        real(*args, **options)
        raise RuntimeError("the watchdog")

    shop.has(migration)
    monkeypatch.setattr(SyncMigration, "advance", advance_and_raise)
    told = "RuntimeError: the watchdog: it moved before that, quotes is at flip"
    assert advance("flip", "--yes") == Ended(1, "quotes  expand → flip\n", f"phyxius: {told}\n")
    shop.has(in_memory())
    assert advance("flip", "--yes", "--json").told == {"error": {"type": "CommandError", "message": told}}


def test_an_error_before_anything_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as it is."""

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no thread starts any more")

    shop.has(in_memory())
    monkeypatch.setattr(SyncMigration, "advance", fail)
    ended = advance("flip", "--yes")
    assert ended.exit == 1
    assert ended.err.startswith("phyxius: RuntimeError: no thread starts any more; --traceback")


def test_signals_that_are_ignored(shop: Shop) -> None:
    """As in the background of a shell: that is respected, and left as it is."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        seen: list[object] = []

        def app() -> Any:
            seen.append(signal.getsignal(signal.SIGINT))
            return in_memory()

        shop.has(app)
        assert phyxius("status").exit == 0
        assert seen == [signal.SIG_IGN]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_it_is_closed(shop: Shop) -> None:
    """What has ended has ended so."""

    @contextmanager
    def app() -> Iterator[Any]:
        yield in_memory()
        interrupt_main()

    shop.has(app)
    ended = advance("flip", "--yes")
    assert (ended.exit, ended.err) == (0, "phyxius: interrupted while the application was closed\n")
    assert advance("nowhere").exit == 2


@pytest.mark.parametrize("interrupt, word", [(KeyboardInterrupt, "interrupted"), (Terminated, "terminated")])
def test_who_is_impatient_learns_that_it_is_unknown(
    interrupt: type[KeyboardInterrupt], word: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second interrupt does not wait for what the first one ends, and that may be a commit under way."""
    shop.has(in_memory())

    def twice(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise interrupt  # noqa: B904 - as it comes

    monkeypatch.setattr(SyncMigration, "advance", twice)
    told = f"phyxius: {word} again: whether quotes moves is unknown; look with phyxius status quotes\n"
    ended = phyxius("advance", "quotes", "--to", "flip", "--yes")
    assert (ended.exit, ended.err) == (6, told)


def test_a_disk_that_is_full(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It moved, and its exit code says so, though nothing can be printed."""
    shop.has(in_memory())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Screen, "json", full)
    ended = phyxius("advance", "quotes", "--to", "flip", "--yes")
    assert ended.exit == 0
    assert ended.err == "phyxius: ADVANCED, which could not be printed: [Errno 28] No space left on device\n"
    ended = phyxius("advance", "quotes", "--to", "nowhere")
    assert (ended.exit, ended.err) == (2, "phyxius: quotes has no phase 'nowhere'; it has: expand, flip\n")
