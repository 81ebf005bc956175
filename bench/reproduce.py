"""Makes one of the paper's tables again, or figure 3, and records it.

    python bench/reproduce.py table2 --work FOLDER [options of `squeezekit reproduce`]

The photos are those of `imagenette-mini`; FOLDER keeps what is done. The same command goes on after
an interruption, from what FOLDER has; all the commits that it was started at are recorded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import COMMIT, options, record

from squeezekit.files import write_whole


def main(out: Path, folder: Path, arguments: list[str | Path]) -> None:
    started = folder / "commits.json"
    commits = json.loads(started.read_text()) if started.exists() else []
    folder.mkdir(parents=True, exist_ok=True)
    commits = list(dict.fromkeys([*commits, COMMIT]))
    write_whole(started, json.dumps(commits).encode())
    command = [sys.executable, "-m", "squeezekit", "reproduce", *arguments, "--out", folder]
    subprocess.run(command, check=True)
    results = json.loads((folder / "results.json").read_text())
    del results["command"]  # ours is recorded, and says the same
    record(out, {"commits": commits, **without_folders(results)})


def without_folders(value: Any) -> Any:
    """Absolute paths as names: results say what they were made of, not where it lay."""
    if isinstance(value, dict):
        return {key: without_folders(content) for key, content in value.items()}
    if isinstance(value, list):
        return [without_folders(content) for content in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


if __name__ == "__main__":
    parser = options(__doc__, result="TABLE_imagenette_mini.json")
    parser.add_argument("table", choices=("table2", "table3", "figure3"))
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is done")
    known, others = parser.parse_known_args()
    out = known.out.with_name(known.out.name.replace("TABLE", known.table))
    photos = known.data / "imagenette-mini"
    main(out, known.work, [known.table, "--data", photos, *others])
