"""A study that any number of processes and machines work on: no trial lost, and none run twice.

Optuna keeps the trials, in a file or in PostgreSQL, and notices dead workers by their heartbeats.
This module makes the number of trials exact: the study has one ticket for each trial, a worker does
nothing without a ticket, and the ticket of a worker that died is given out again.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    TrialPruned,
    UpdateFinishedTrialError,
)
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from squeezekit.errors import InputError, WriteError
from squeezekit.files import alone

Objective = Callable[[optuna.Trial], Sequence[float]]
"""Gives the values of a trial. Raises TrialPruned if it stops early, WriteError if this worker's
files cannot be written, and another InputError if the trial can never be done."""

MOST_ATTEMPTS = 3
"""If this many workers died of a trial, the trial is taken to be the cause."""

TICKET, ERROR, STOPPED, FREED = "ticket", "error", "stopped", "freed"
"""Attributes of trials: the number of the ticket, from 0; why it failed; why it was stopped; and
whether its worker gave it back (then the trial is not at fault)."""

_SETTINGS = "settings"
_FIXED = "fixed_params"  # Optuna's own, for values that a trial must take
_LOCK = zlib.crc32(b"squeezekit explore")  # PostgreSQL's advisory locks have numbers


@dataclass(frozen=True)
class Pulse:
    """How to tell a dead worker from a busy one.

    Attributes:
        interval_seconds: the time between a worker's signs of life.
        grace_seconds: after this long without a sign of life, its trial goes to another worker.
    """

    interval_seconds: int = 15
    grace_seconds: int = 60


@dataclass(frozen=True)
class Ticket:
    """A trial of the study, with all attempts at it.

    Attributes:
        number: from 0.
        attempts: Optuna's trials for it, in order; all but the last are from workers that died.
    """

    number: int
    attempts: tuple[FrozenTrial, ...]

    @property
    def last(self) -> FrozenTrial:
        """The attempt that counts."""
        return self.attempts[-1]

    @property
    def lost(self) -> bool:
        """True if its worker died or gave it back, so that another must try."""
        failed = self.last.state == TrialState.FAIL and ERROR not in self.last.user_attrs
        died = sum(FREED not in attempt.user_attrs for attempt in self.attempts)
        return failed and died < MOST_ATTEMPTS

    @property
    def done(self) -> bool:
        """True if it needs no more attempts."""
        return self.last.state.is_finished() and not self.lost


class SharedStudy:
    """A study in a database, and this process's part in it.

    Args:
        url: the URL of the database; `database_url` makes it of what a user typed.
        name: the name of the study; the same for all workers.
        directions: one for each value of a trial.
        settings: what all workers must agree on, as JSON takes it.
        pulse: the pulse of its workers.

    Raises:
        InputError: if the database cannot be used, or the study there has other settings.
    """

    def __init__(
        self,
        url: sqlalchemy.URL,
        name: str,
        directions: Sequence[StudyDirection],
        settings: Mapping[str, Any],
        pulse: Pulse = Pulse(),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._url, self._pulse = url, pulse
        self._alone = _lock(url)
        with ExitStack() as undo, _database_errors(url), self._alone():
            self._storage = _storage(url, pulse)
            undo.callback(self.close)
            self.study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                directions=directions,
                load_if_exists=True,
            )
            self._id = self._storage.get_study_id_from_name(name)
            _agree(self.study, dict(settings))
            undo.pop_all()

    def __enter__(self) -> SharedStudy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def issue(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Make tickets for all points that have none yet.

        Args:
            points: values that a trial must take, by name; the sampler chooses the others. Those
                of tickets that exist are not looked at.
        """
        with self._alone():
            for number in range(len(self.tickets()), len(points)):
                self._queue(number, points[number])

    def tickets(self) -> list[Ticket]:
        """All tickets of the study, as they stand now."""
        attempts: dict[int, list[FrozenTrial]] = {}
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        for trial in sorted(trials, key=lambda trial: trial.number):
            attempts.setdefault(trial.user_attrs[TICKET], []).append(trial)
        return [Ticket(number, tuple(attempts[number])) for number in sorted(attempts)]

    def work(
        self,
        objective: Objective,
        sampler: Callable[[int], BaseSampler],
        watch: Callable[[list[Ticket]], None] = lambda tickets: None,
    ) -> None:
        """Take tickets until all are done, by this worker or another.

        Args:
            objective: does a trial.
            sampler: for a ticket's number, what chooses the values of its trial.
            watch: shown all tickets before each trial, each second of waiting, and in the end.

        Raises:
            KeyboardInterrupt: and whatever else the objective raises; the ticket is free again.
            WriteError: if a file of the trial cannot be written; the same.
            InputError: if the database is out of reach; the same.
        """
        with _database_errors(self._url):
            while True:
                with self._alone():
                    self._queue_lost()
                tickets = self.tickets()
                watch(tickets)
                if all(ticket.done for ticket in tickets):
                    return
                trial = self._claim(sampler)
                if trial is not None:
                    self._attempt(trial, objective)
                else:  # others have the last ones: wait, in case they die
                    time.sleep(min(self._pulse.interval_seconds, 1))

    # --------------------------------------------------------------------------------- one ticket

    def _claim(self, sampler: Callable[[int], BaseSampler]) -> optuna.Trial | None:
        """Take a waiting ticket for this worker."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            # First a sign of life, then the trial. Optuna never notices the death of a worker that
            # gave no sign of life, and its trial would run for ever.
            self._storage.record_heartbeat(trial._trial_id)
            try:
                mine = self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            if mine:
                self.study.sampler = sampler(trial.user_attrs[TICKET])
                return optuna.Trial(self.study, trial._trial_id)
        return None

    def _attempt(self, trial: optuna.Trial, objective: Objective) -> None:
        # If this worker slept so long that it was given up, its trial cannot be changed any more:
        # another worker has the ticket.
        with self._heart(trial._trial_id), suppress(UpdateFinishedTrialError):
            try:
                self._tell(trial, values=objective(trial))
            except TrialPruned as reason:
                trial.set_user_attr(STOPPED, str(reason))
                self._tell(trial, state=TrialState.PRUNED)
            except (KeyboardInterrupt, WriteError):
                # If the disk is full, the database may refuse this too. Without signs of life the
                # trial becomes free anyway.
                with suppress(StorageInternalError, SQLAlchemyError):
                    trial.set_user_attr(FREED, True)
                    self._tell(trial, state=TrialState.FAIL)
                raise
            except InputError as reason:
                trial.set_user_attr(ERROR, str(reason))
                self._tell(trial, state=TrialState.FAIL)
            except BaseException:
                self._tell(trial, state=TrialState.FAIL)
                raise

    def _tell(self, trial: optuna.Trial, **result: Any) -> None:  # noqa: ANN401 - Study.tell's own
        if not self._storage.get_trial(trial._trial_id).state.is_finished():
            self.study.tell(trial, **result)

    @contextmanager
    def _heart(self, trial_id: int) -> Iterator[None]:
        """Give signs of life during the `with`."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._pulse.interval_seconds):
                try:
                    self._storage.record_heartbeat(trial_id)
                except (StorageInternalError, SQLAlchemyError):
                    continue  # the database is out of reach; it may be back at the next beat

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    # ---------------------------------------------------------------------------------- the queue

    def _queue_lost(self) -> None:
        """Give the tickets of dead workers out again; a crash on the way loses nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self.study)
        for ticket in self.tickets():
            if ticket.lost:
                given = ticket.last.system_attrs.get(_FIXED, {})
                self._queue(ticket.number, {**given, **ticket.last.params})

    def _queue(self, ticket: int, values: Mapping[str, Any]) -> None:
        self.study.enqueue_trial(dict(values), user_attrs={TICKET: ticket})


# ------------------------------------------------------------------------------------ the database


def database_url(storage: str | None, file: Path) -> sqlalchemy.URL:
    """The address of the database that a user asked for.

    Args:
        storage: `postgresql://USER:PASSWORD@HOST/DATABASE`, or None for a file.
        file: where that is.

    Raises:
        InputError: for what is no such address.
    """
    if storage is None:
        return sqlalchemy.URL.create("sqlite", database=str(file))
    try:
        url = sqlalchemy.make_url(storage)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise InputError(
            "the storage must be the address of a PostgreSQL database, "
            "postgresql://USER:PASSWORD@HOST/DATABASE; without it the study is a file in the folder"
        )
    return url.set(drivername="postgresql+psycopg")


def _storage(url: sqlalchemy.URL, pulse: Pulse) -> RDBStorage:
    is_file = url.get_backend_name() == "sqlite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs={"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True},
            heartbeat_interval=pulse.interval_seconds,
            grace_period=pulse.grace_seconds,
        )
    if is_file:
        _lock_rows(storage.engine)
    return storage


def _lock_rows(engine: sqlalchemy.Engine) -> None:
    """Let SQLite, which has no SELECT FOR UPDATE, lock the file from a transaction's beginning."""

    def leave_to_us(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened without
    sqlalchemy.event.listen(engine, "connect", leave_to_us)
    sqlalchemy.event.listen(engine, "begin", begin)


def _lock(url: sqlalchemy.URL) -> Callable[[], AbstractContextManager[None]]:
    """A lock among all workers on a database; it is freed if its holder dies."""

    @contextmanager
    def in_database() -> Iterator[None]:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))
            yield

    if url.get_backend_name() == "sqlite":
        return lambda: alone(Path(f"{url.database}.lock"))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    return in_database


def _agree(study: optuna.Study, settings: dict[str, Any]) -> None:
    """Check that all workers of a study do the same."""
    there = study.user_attrs.get(_SETTINGS)
    if there is None:
        study.set_user_attr(_SETTINGS, settings)
        return
    settings = json.loads(json.dumps(settings))
    for name, value in settings.items():
        if there.get(name) != value:
            raise InputError(
                f"the study {study.study_name!r} was begun with {name} {there.get(name)!r}, not "
                f"{value!r}: use the same, or another name or folder for the study"
            )


@contextmanager
def _database_errors(url: sqlalchemy.URL) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", cause)).strip().splitlines()[0]
        raise InputError(f"{url.render_as_string()} cannot be used: {reason}") from None
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise InputError("PostgreSQL needs psycopg: pip install 'squeezekit[explore]'") from None
