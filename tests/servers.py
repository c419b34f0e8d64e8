"""Private PostgreSQL and Redis servers for tests, on sockets in a folder of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

START_WITHIN_S = 30.0


@contextlib.contextmanager
def private_postgres() -> Iterator[str]:
    """Start a cluster and yield the address of its maintenance database; skip without binaries."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb is not installed here")
    user = _unprivileged_user() if os.geteuid() == 0 else None
    with _folder(user) as folder:
        data, log = folder / "data", folder / "log"
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
        _run(user, programs / "initdb", "-D", data, "-A", "trust", "-U", "tests", "--no-sync")
        _run(user, programs / "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        try:
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            _run(user, programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextlib.contextmanager
def fresh_postgres_database(maintenance: str) -> Iterator[str]:
    """Yield the address of a new, empty database, dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    url = sa.make_url(maintenance).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        yield sa.make_url(maintenance).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """Start a Redis that keeps nothing on disk and yield its address; skip without the binary."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed here")
    with _folder(None) as folder:
        socket = folder / "redis.sock"
        command = [program, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                _wait_for(socket)
                yield f"unix://{socket}"
            finally:
                server.terminate()


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).parent if on_path else None


def _unprivileged_user() -> str:
    # PostgreSQL refuses to run as root
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return pytest.skip("PostgreSQL does not run as root and there is no user postgres or nobody")


@contextlib.contextmanager
def _folder(owner: str | None) -> Iterator[Path]:
    # short: the path of a socket may not exceed about 100 characters
    folder = Path(tempfile.mkdtemp(prefix="srv-", dir="/tmp"))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(user: str | None, *command: object) -> None:
    words = [str(word) for word in command]
    if user is not None:
        words = ["runuser", "-u", user, "--", *words]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear")
        time.sleep(0.02)
