"""A PostgreSQL of one's own, in a temporary folder, for the tests and the benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class NoPostgresError(Exception):
    """There is no PostgreSQL here; the message says what is missing."""


@contextmanager
def cluster() -> Iterator[str]:
    """Make and start a cluster that listens on a Unix socket only; gives the address of a database.

    PostgreSQL refuses to run as root: then it runs as the user postgres, or nobody.

    Raises:
        NoPostgresError: where the programs, or such a user, are missing.
    """
    programs = _programs()
    # Not pytest's tmp_path: a socket's path may have no more than 107 characters, and another user
    # must be allowed to get there.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = _user() if hasattr(os, "geteuid") and os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        done = subprocess.run(
            command,
            user=user,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,  # of a machine with much else to do
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")

    pg_ctl = (str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    try:
        run(
            str(programs / "initdb"), "-D", str(folder / "data"),
            "-U", "squeezekit", "-A", "trust", "-E", "UTF8", "-N",
        )  # fmt: skip
        run(*pg_ctl, "-o", options, "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql://squeezekit@/postgres?host={folder}"
        finally:
            run(*pg_ctl, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """The folder of initdb and pg_ctl, which Debian keeps out of the path."""
    found: Sequence[Path] = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = shutil.which("initdb") or (str(found[-1]) if found else None)
    if program is None:
        raise NoPostgresError("there is no PostgreSQL here: apt-get install postgresql")
    return Path(program).resolve().parent


def _user() -> str:
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise NoPostgresError("PostgreSQL does not run as root, and there is no user nobody")
