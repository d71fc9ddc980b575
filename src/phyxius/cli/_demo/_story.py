"""One migration from its first phase to its last: `phyxius demo`."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from phyxius.cli._demo._clients import Clients, checksum
from phyxius.cli._demo._place import place
from phyxius.cli._demo._process import Process
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Screen
from phyxius.clock import create_system_clock

ROWS = 20_000
_BATCH = 500
_KILLED_AT = 0.6
_AT_ONCE = 200
_NO_TIME, _SECOND = timedelta(0), timedelta(seconds=1)
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_TO_READ, _TO_READ_MUCH = 1.0, 2.0  # seconds, where somebody watches
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_BUG, _MENDED = "return int(float(total) * 100)", "return int(Decimal(total) * 100)"

_FILL = """INSERT INTO quotes WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
           SELECT i, 'customer ' || (i % 97), printf('%d.%02d', i * 37 % 500, i * 7 % 100) FROM n"""
_WRONG = """SELECT number, total, printf('%d.%02d', cents / 100, cents % 100) AS wrong
            FROM quotes JOIN sales_documents USING (number) WHERE total <> wrong ORDER BY number LIMIT 1"""


def demo(screen: Screen, keep: Path | None, *, fast: bool) -> Exit:
    """Tell the story on files of its own.

    Args:
        screen: Where.
        keep: The directory for the files, which is made; None for one that is removed in the end.
        fast: Whether to leave out the pauses that somebody who watches is given to read.

    Raises:
        CommandError: It went otherwise than it should.
    """
    try:
        with place(screen, keep) as directory:
            Story(screen, directory, pause_for(screen, fast=fast)).tell()
    except KeyboardInterrupt:
        screen.show_cursor()  # a child that was killed in the middle may have left it hidden
        raise
    return Exit.DONE


def pause_for(screen: Screen, *, fast: bool) -> Callable[[float], object]:
    """What waits for as many seconds where somebody may be reading, and nowhere else."""
    watched = screen.out.file.isatty() and not screen.as_json and not os.environ.get("CI")
    return time.sleep if watched and not fast else lambda _: None


class Story:
    """What happens, and in which order."""

    def __init__(self, screen: Screen, directory: Path, pause: Callable[[float], object]) -> None:
        self._screen = screen
        self._directory = directory
        self._pause = pause
        self._now = _BEGIN
        self._watch = create_system_clock()
        self._began = self._watch.now()
        self._processes = 0
        self._refused = 0

    def tell(self) -> None:
        """Tell it.

        Raises:
            CommandError: It went otherwise than it should.
        """
        self._prepare()
        self._start()
        try:
            self._expand()
            self._copy_and_kill()
            self._compare()
            self._fall_silent()
            self._drop()
            self._shop.end()
        finally:
            self._shop.discard()
        self._look_back()
        self._prove()

    # -- the acts

    def _prepare(self) -> None:
        for name, text in (("now", _BEGIN.isoformat()), ("pyproject.toml", '[tool.phyxius]\napp = "shop:migration"\n')):
            (self._directory / name).write_text(text, encoding="ascii")
        shutil.copyfile(Path(__file__).parent / "shop.py", self._directory / "shop.py")
        self._sql("PRAGMA journal_mode = WAL")
        self._sql("CREATE TABLE quotes (number INTEGER PRIMARY KEY, customer TEXT, total TEXT)")
        self._sql(_FILL, ROWS)
        self._clients = Clients(self._sql("SELECT number, customer, total FROM quotes"))
        self._screen.say("A shop moves its quotes to a new table, and goes on selling all the while.", style="bold")
        self._screen.say(
            f"It has {len(self._clients.accepted):,} rows in SQLite. Scripted are the requests, a bug and the moment of"
            " a kill; the clock is simulated, so that a month goes by at once. Real are the processes, the kill and the"
            " database, and each number is measured as it runs."
        )

    def _expand(self) -> None:
        self._act("The first step")
        self._traffic(_MINUTE, reads=100, saves=20)
        self._phyxius("status")
        self._say("A step is a call, and it is refused until the evidence says yes. There is no table yet.")
        self._phyxius("advance", "quotes", "--to", "dual_write", expect=Exit.REFUSED)
        self._sql("CREATE TABLE sales_documents (number INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
        self._say("The table is created. Evidence is a query, so it is asked again:")
        self._phyxius("advance", "quotes", "--to", "dual_write")

    def _copy_and_kill(self) -> None:
        self._act("Copied, killed, copied on")
        self._say("From now on each save goes to both tables. What was there before is copied, in batches.")
        last = max(self._clients.accepted)
        reported = self._copy(0, int(last * _KILLED_AT), last)
        self._clients.save(self._shop, 3)
        self._shop.send(copy=[reported, reported + _BATCH])
        pid = self._shop.pid
        self._shop.kill(self._clients.hear)
        [(there,)] = self._sql("SELECT count(*) FROM sales_documents WHERE number <= ?", last)
        self._say(
            f"kill -9 {pid}: the process is gone, with {self._clients.waiting} requests and a batch under way. It had"
            f" reported {reported:,} rows, and {there:,} are there.",
            style="red",
        )
        self._pause(_TO_READ)
        self._say(
            "Five minutes later somebody looks. Before the shop may read the new table, all has to be copied; for a day"
            " each save must have gone to both tables (both_written), and reads of both must have agreed (reads_agree)."
        )
        self._tell_time(self._now + 5 * _MINUTE)
        self._phyxius("check", "quotes", expect=Exit.REFUSED)
        self._start()
        again = self._clients.ask_again(self._shop)
        self._say(
            "Nobody knows what the process read in its last seconds. So they prove nothing, and the day begins after"
            " them. What it saved is known, as each of its saves is noted before it runs."
            f" {self._shop.name} takes its place, {again} requests are made again, and the copy goes on."
        )
        self._traffic(_SECOND)
        self._copy(reported, last, last)

    def _compare(self) -> None:
        self._act("Old and new are compared")
        self._say("Each read is answered from the old table, and made once more, from the new one. A day goes by.")
        self._traffic(_DAY + _HOUR, reads=1_500, saves=40)
        self._phyxius("advance", "quotes", "--to", "flip", expect=Exit.REFUSED)
        [(number, total, wrong)] = self._sql(_WRONG)
        self._say(
            f"A bug in the new path! Quote {number} is {total} in quotes, {wrong} in sales_documents. It is mended:"
        )
        self._mend()
        self._pause(_TO_READ)
        self._restart()
        self._phyxius("advance", "quotes", "--to", "flip", expect=Exit.REFUSED)
        self._say("And what the bug has copied is still there. It is copied again, and another day goes by.")
        last = max(self._clients.accepted)
        self._copy(0, last, last)
        self._traffic(_DAY + _HOUR, reads=1_500, saves=40)
        self._phyxius("advance", "quotes", "--to", "flip")

    def _fall_silent(self) -> None:
        self._act("Fourteen days of silence")
        self._say("The shop reads the new table now. Does anybody still read the old one? Twelve days go by.")
        for _ in range(12):
            self._clients.read(self._shop, 1, "the nightly report")
            self._traffic(_DAY, reads=50, saves=10)
        self._phyxius("check", "quotes", expect=Exit.REFUSED)
        self._say("So there is a report that everybody forgot. It is rewritten, and the owner of the data signs.")
        self._phyxius("sign", "quotes", "--to", "contract", "--as", "ada", "--note", "the report reads the new table")
        self._say("Fourteen days go by.")
        for _ in range(14):
            self._traffic(_DAY, reads=50, saves=10)
        self._phyxius("advance", "quotes", "--to", "contract")

    def _drop(self) -> None:
        self._act("The old table goes")
        self._say(
            "The shop writes to the new table alone now. But requests that began before that step wrote to both once"
            " more, and nothing is dropped under them."
        )
        self._say("As there is no way back from the last phase, the command asks before it; --yes answers that.")
        self._phyxius("advance", "quotes", "--to", "drop", "--yes", expect=Exit.REFUSED)
        self._say("An hour goes by.")
        self._traffic(_HOUR + _MINUTE, reads=200, saves=10)
        self._phyxius("advance", "quotes", "--to", "drop", "--yes")
        self._sql("DROP TABLE quotes")
        self._say("The table quotes is dropped, and the shop goes on.")
        self._traffic(_HOUR, reads=2_000, saves=40)

    def _look_back(self) -> None:
        self._act("How it got there")
        self._phyxius("history", "quotes")

    def _prove(self) -> None:
        self._act("Is any row lost?")
        must, rows = self._clients.stored_as(), self._sql("SELECT * FROM sales_documents ORDER BY number")
        seconds, failures = self._watch.now().ns_since(self._began) / 1e9, self._clients.failures
        self._screen.say("")
        self._fact("accepted", f"{len(must):,} rows, sha256 {checksum(must)[:32]}")
        self._fact("stored", f"{len(rows):,} rows, sha256 {checksum(rows)[:32]}")
        told = f"{self._clients.served:,} requests, {len(failures)} failed, {self._clients.repeated} made again"
        self._fact("served", f"{told} after the kill")
        self._fact("refused", f"{self._refused} times, when it was not proven safe")
        self._fact("took", f"{(self._now - _BEGIN).days} days of the simulated clock, {seconds:.1f} seconds of yours")
        self._screen.json(
            {
                "rows": {"accepted": len(must), "stored": len(rows)},
                "sha256": {"accepted": checksum(must), "stored": checksum(rows)},
                "requests": {"served": self._clients.served, "failed": failures, "repeated": self._clients.repeated},
                "refused": self._refused,
                "simulated_days": (self._now - _BEGIN).days,
                "seconds": seconds,
            }
        )
        if failures:
            raise CommandError(f"the shop did not serve its clients: {failures[0]}")
        if rows != must:
            raise CommandError(f"rows differ: {sorted(set(must) ^ set(rows))[:5]}")
        self._say("No: what was accepted is what is stored, row by row.", style="bold green")

    # -- what it is told with

    def _act(self, title: str) -> None:
        self._pause(_TO_READ)
        self._screen.say("")
        self._screen.rule(f"{self._now:%b %d}  {title}")

    def _say(self, text: str, style: str = "") -> None:
        self._screen.say("")
        self._screen.say(text, style=style)

    def _fact(self, what: str, text: str) -> None:
        self._screen.say(text, lead=f"{what:<10}", lead_style="bold")

    def _phyxius(self, *args: str, expect: Exit = Exit.DONE) -> None:
        """Run the command as somebody would, in the directory of the shop, with requests under way there."""
        if self._shop.is_running:
            self._traffic(_NO_TIME, saves=4)  # they have read the phase, and end after the command has
        self._screen.say("")
        self._screen.say(shlex.join(args), lead="$ phyxius ", style="bold", lead_style="bold cyan")
        self._screen.out.file.flush()
        self._refused += args[0] == "advance" and expect is Exit.REFUSED
        as_json = ["--json"] if self._screen.as_json else []
        command = [sys.executable, "-m", "phyxius_cli", *args, *as_json]
        # Not the migrations of whoever watches: those of the shop, which its pyproject.toml names.
        env = {name: value for name, value in os.environ.items() if name != "PHYXIUS_APP"}
        code = subprocess.run(  # noqa: S603 - our own
            command,
            cwd=self._directory,
            env=env,
            check=False,
            start_new_session=True,  # a Ctrl-C is for the demonstration, which ends this one, too
        ).returncode
        if code != expect:
            raise CommandError(f"phyxius {shlex.join(args)} ended with {code}, and should have ended with {expect:d}")
        if self._shop.is_running:
            self._traffic(_SECOND)
        self._pause(_TO_READ_MUCH if args[0] in ("check", "history") else _TO_READ)

    def _sql(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._directory / "shop.db", timeout=30)) as database, database:
            return database.execute(sql, values).fetchall()

    # -- the shop, its clients and the clock

    def _start(self) -> None:
        self._processes += 1
        self._shop = Process(self._directory, f"shop-{self._processes}")

    def _restart(self) -> None:
        self._shop.end()
        self._start()

    def _mend(self) -> None:
        path = self._directory / "shop.py"
        source = path.read_text(encoding="utf-8")
        for before, after in ((_BUG, _MENDED), ("\nfrom pathlib", "\nfrom decimal import Decimal\nfrom pathlib")):
            source = source.replace(before, after)
        path.write_text(source, encoding="utf-8")
        self._screen.say(_BUG, lead="- ", style="red", lead_style="red", indent=4)
        self._screen.say(_MENDED, lead="+ ", style="green", lead_style="green", indent=4)

    def _copy(self, after: int, until: int, of: int) -> int:
        """Copy rows while requests are served; the last one that is reported."""
        with self._screen.counted("copied", of) as counted:
            while after < until:
                self._traffic(_SECOND, saves=4)
                self._shop.send(copy=[after, min(after + _BATCH, until)])
                after = self._wait_for("copied")
                counted(after)
        return after

    def _traffic(self, duration: timedelta, reads: int = 0, saves: int = 0) -> None:
        """Let time go by, with requests."""
        rounds = max(1, reads // _AT_ONCE)
        for _ in range(rounds):
            self._clients.read(self._shop, reads // rounds)
            self._clients.save(self._shop, saves // 2 // rounds)
            self._shop.send(elapse=(duration / rounds).total_seconds())
            self._tell_time(datetime.fromisoformat(self._wait_for("now")))

    def _tell_time(self, now: datetime) -> None:
        self._now = now
        (self._directory / "now").write_text(now.isoformat(), encoding="ascii")

    def _wait_for(self, what: str) -> Any:
        while what not in (message := self._shop.receive()):
            self._clients.hear(message)
        return message[what]
