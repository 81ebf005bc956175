"""Makes one of the paper's tables again, or figure 3, and records it.

    python bench/reproduce.py OUT.json table2 --data DIR --out FOLDER ...

Everything behind OUT.json goes to `squeezekit reproduce`. The same command goes on after an
interruption, from what FOLDER has; all the commits that it was started at are recorded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import commit, record

from squeezekit.files import write_whole


def main(out: Path, arguments: list[str]) -> None:
    folder = Path(arguments[arguments.index("--out") + 1])
    started = folder / "commits.json"
    commits = json.loads(started.read_text()) if started.exists() else []
    folder.mkdir(parents=True, exist_ok=True)
    commits = list(dict.fromkeys([*commits, commit()]))
    write_whole(started, json.dumps(commits).encode())
    subprocess.run([sys.executable, "-m", "squeezekit", "reproduce", *arguments], check=True)
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
    main(Path(sys.argv[1]), sys.argv[2:])
