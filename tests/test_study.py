"""Studies that several processes share: every trial once, whoever dies."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState
from postgres import NoPostgresError, cluster

from squeezekit.errors import InputError, WriteError
from squeezekit.exploration.study import (
    ERROR,
    MOST_ATTEMPTS,
    STOPPED,
    TICKET,
    Pulse,
    SharedStudy,
    database_url,
)

WORKER = Path(__file__).with_name("study_worker.py")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
QUICK = Pulse(interval_seconds=1, grace_seconds=2)


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL that is only here for this module."""
    try:
        with cluster() as url:
            yield url
    except NoPostgresError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["file", "postgres"])
def database(request, tmp_path):
    """A fresh database of each kind, as `--storage` names it; None is the file in tmp_path."""
    if request.param == "file":
        yield None
        return
    import psycopg

    url = request.getfixturevalue("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    yield url


@pytest.fixture
def open_study():
    """Join the study of the test, as a worker does; its connections are closed at the end."""
    with contextlib.ExitStack() as opened:

        def join(database, folder, settings=None):
            url = database_url(database, folder / "study.db")
            shared = SharedStudy(url, "test", DIRECTIONS, settings or {}, QUICK)
            return opened.enter_context(shared)

        yield join


def start(database, trials, marks, grace, *slow):
    command = [sys.executable, WORKER, database or "file", trials, marks, grace, *slow]
    return subprocess.Popen([str(part) for part in command])


def lines(marks):
    return [
        (pid.stem, *line.split()[:2])
        for pid in marks.glob("*.txt")
        for line in pid.read_text().splitlines()
    ]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_two_workers_one_killed(open_study, database, tmp_path):
    """A worker is killed in the middle of a trial, and all trials are done, each once."""
    total, slow, grace = 12, 7, 6  # a busy machine lets a worker that lives wait for seconds
    victim = start(database, total, tmp_path, grace, slow)
    other = None
    try:
        begun = (str(victim.pid), "begun", str(slow))
        wait_for(lambda: begun in lines(tmp_path))
        other = start(database, total, tmp_path, grace)
        # The other one does what is left, and then waits for the victim: it is not given up yet.
        wait_for(lambda: sum(event == "ended" for _, event, _ in lines(tmp_path)) == total - 1)
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        assert other.wait(120) == 0
    finally:
        for process in (victim, other):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(10)
    ended = Counter(int(ticket) for _, event, ticket in lines(tmp_path) if event == "ended")
    assert ended == Counter(range(total))
    tickets = open_study(database, tmp_path).tickets()
    assert [ticket.number for ticket in tickets] == list(range(total))
    assert all(ticket.last.state == TrialState.COMPLETE for ticket in tickets)
    assert [t.number for t in tickets if len(t.attempts) > 1] == [slow]
    killed, again = tickets[slow].attempts
    assert (killed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert killed.params == again.params == {"x": slow / total}


def test_workers_that_begin_at_once(open_study, database, tmp_path):
    """Tables, study and tickets are made once, and the last trials are not run twice."""
    total = 16
    workers = [start(database, total, tmp_path, 600) for _ in range(2)]
    assert [worker.wait(120) for worker in workers] == [0] * 2
    begun = Counter(int(ticket) for _, event, ticket in lines(tmp_path) if event == "begun")
    assert begun == Counter(range(total))
    tickets = open_study(database, tmp_path).tickets()
    assert len(tickets) == total
    assert all(len(ticket.attempts) == 1 for ticket in tickets)


def test_more_trials_are_added_to_a_study(open_study, tmp_path):
    for total in (3, 5, 4):
        shared = open_study(None, tmp_path)
        shared.issue([{}] * total)
        shared.work(lambda trial: (0.0, 0.0), RandomSampler)
    assert len(shared.tickets()) == 5


def test_what_becomes_of_trials(open_study, tmp_path):
    """Stopped and failed trials are done; an interrupted one is done again."""

    def objective(trial):
        ticket = trial.user_attrs[TICKET]
        if ticket == 0:
            raise optuna.TrialPruned("hopeless")
        if ticket == 1:
            raise InputError("it diverged")
        if ticket == 2 and not interrupted:
            interrupted.append(trial.suggest_float("x", 0, 1))
            raise KeyboardInterrupt
        return trial.suggest_float("x", 0, 1), 0.0

    interrupted = []
    shared = open_study(None, tmp_path)
    shared.issue([{}] * 4)
    with pytest.raises(KeyboardInterrupt):
        shared.work(objective, RandomSampler)
    shared = open_study(None, tmp_path)
    shared.issue([{}] * 4)
    shared.work(objective, RandomSampler)
    stopped, failed, again, plain = shared.tickets()
    assert (stopped.last.state, stopped.last.user_attrs[STOPPED]) == (TrialState.PRUNED, "hopeless")
    assert (failed.last.state, failed.last.user_attrs[ERROR]) == (TrialState.FAIL, "it diverged")
    assert len(stopped.attempts) == len(failed.attempts) == len(plain.attempts) == 1
    assert [a.state for a in again.attempts] == [TrialState.FAIL, TrialState.COMPLETE]
    assert again.last.params == {"x": interrupted[0]}


def test_a_trial_that_kills_its_workers_is_given_up(open_study, tmp_path):
    class Death(BaseException):
        pass

    def objective(trial):
        if trial.user_attrs[TICKET] == 1:
            raise Death
        return 0.0, 0.0

    shared = open_study(None, tmp_path)
    shared.issue([{}] * 3)
    for _ in range(MOST_ATTEMPTS):
        with contextlib.suppress(Death):
            shared.work(objective, RandomSampler)
    shared.work(objective, RandomSampler)
    assert [len(ticket.attempts) for ticket in shared.tickets()] == [1, MOST_ATTEMPTS, 1]
    assert all(ticket.done for ticket in shared.tickets())


@pytest.mark.parametrize("reason", [KeyboardInterrupt, WriteError("a: cannot be written")])
def test_a_trial_that_is_given_back_is_never_given_up(open_study, tmp_path, reason):
    """Ctrl-C and a full disk say nothing against it, however often they come."""

    def objective(trial):
        if trial.user_attrs[TICKET] == 1 and len(given_back) < 2 * MOST_ATTEMPTS:
            given_back.append(trial.suggest_float("x", 0, 1))
            raise reason
        return trial.suggest_float("x", 0, 1), 0.0

    given_back = []
    shared = open_study(None, tmp_path)
    shared.issue([{}] * 3)
    for _ in range(2 * MOST_ATTEMPTS):
        with pytest.raises(type(reason) if isinstance(reason, WriteError) else reason):
            shared.work(objective, RandomSampler)
    shared.work(objective, RandomSampler)
    tickets = shared.tickets()
    assert [len(ticket.attempts) for ticket in tickets] == [1, 2 * MOST_ATTEMPTS + 1, 1]
    assert all(ticket.last.state == TrialState.COMPLETE for ticket in tickets)
    assert given_back == [tickets[1].last.params["x"]] * (2 * MOST_ATTEMPTS)


@pytest.mark.parametrize("late", [True, False])
def test_a_worker_that_was_given_up_changes_nothing(open_study, tmp_path, late):
    """It slept, its ticket went to another, and what it brings then is not wanted."""
    shared, other = open_study(None, tmp_path), open_study(None, tmp_path)
    shared.issue([{}])

    def sleeper(trial):
        number = trial.number
        other.study.tell(number, state=TrialState.FAIL)  # as the other one does for the dead
        other.work(lambda trial: (1.0, 1.0), RandomSampler)
        if late:
            trial.set_user_attr("late", late)
        return 0.0, 0.0

    shared.work(sleeper, RandomSampler)
    (ticket,) = shared.tickets()
    assert [a.state for a in ticket.attempts] == [TrialState.FAIL, TrialState.COMPLETE]
    assert ticket.last.values == [1.0, 1.0]


def test_workers_must_agree(open_study, database, tmp_path):
    open_study(database, tmp_path, {"epochs": 3, "sizes": (1, 2)})
    open_study(database, tmp_path, {"epochs": 3, "sizes": (1, 2)})
    with pytest.raises(InputError, match=r"'test' was begun with epochs 3, not 4"):
        open_study(database, tmp_path, {"epochs": 4, "sizes": (1, 2)})


@pytest.mark.parametrize("storage", ["mysql://host/x", "nonsense", "sqlite:///x.db", ""])
def test_addresses_that_are_none(storage, tmp_path):
    with pytest.raises(InputError, match="the address of a PostgreSQL database"):
        database_url(storage, tmp_path / "study.db")


def test_password_stays_secret_where_there_is_no_database(tmp_path):
    url = database_url(f"postgresql://me:pa55word@/x?host={tmp_path}", tmp_path)
    with pytest.raises(InputError, match="cannot be used") as caught:
        SharedStudy(url, "test", DIRECTIONS, {})
    assert "pa55word" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_hold_a_file(open_study, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        open_study(None, tmp_path / "missing")


def test_finds_postgres_where_debian_has_it():
    """So that the tests above are not skipped for a folder that is not in the path."""
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or os.name != "posix":
        pytest.skip("there is no PostgreSQL of Debian's here")
    from postgres import _programs

    assert (_programs() / "pg_ctl").exists()
