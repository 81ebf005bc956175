"""A worker of a study whose trials only sleep: run as a process by test_study.py.

    python study_worker.py URL TRIALS MARKS GRACE [SLOW]

Leaves a line a trial in the folder MARKS: its ticket and what became of it. A worker that gives no
sign of life for GRACE seconds is given up. With SLOW, a trial of that ticket takes for ever.
"""

import os
import sys
import time
from pathlib import Path

from optuna.samplers import RandomSampler
from optuna.study import StudyDirection

from squeezekit.exploration.study import TICKET, Pulse, SharedStudy, database_url

url, trials, marks = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
grace, slow = int(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else None
file = marks / "study.db"


def objective(trial):
    ticket = trial.user_attrs[TICKET]
    x = trial.suggest_float("x", 0.0, 1.0)
    with (marks / f"{os.getpid()}.txt").open("a") as log:
        print("begun", ticket, x, file=log, flush=True)
        time.sleep(3600 if ticket == slow else 0.005)
        print("ended", ticket, x, file=log, flush=True)
    return x, 1.0 - x


shared = SharedStudy(
    database_url(None if url == "file" else url, file),
    "test",
    (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE),
    {},
    Pulse(interval_seconds=1, grace_seconds=grace),
)
shared.issue([{"x": i / trials} if i % 2 else {} for i in range(trials)])
shared.work(objective, RandomSampler)
