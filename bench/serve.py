"""`squeezekit serve` with the published network: mixed requests, good and bad, from eight clients.

    python bench/serve.py [--requests 1000]

One image of
25 is enlarged to 12 megapixels. Every answer is compared with the classifier run directly, every
refusal with the reason it should have; one request of 25 is a form made to keep a careless reader
busy. Another process asks for /health all the time. Memory and descriptors are those of the
server's process, after every hundred requests. About two minutes a thousand on two cores.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
from common import options, published, record
from mixed_requests import (
    Request,
    hostile_forms,
    mixed,
    posted,
    refused,
    resident_bytes,
    send_all,
    server,
    stopped,
)
from PIL import Image

from squeezekit.runtime.loading import load
from squeezekit.sqz import container

MOST_BYTES, MOST_PIXELS, SECONDS, CLIENTS, BLOCK = 16 * 2**20, 50_000_000, 2, 8, 100
FORMS_EVERY = 25

ASK_HEALTH = """
import http.client, sys, time
host, port = sys.argv[1], int(sys.argv[2])
connection = http.client.HTTPConnection(host, port, timeout=60)
while True:
    start = time.perf_counter()
    try:
        connection.request("GET", "/health")
        ready = connection.getresponse().read().startswith(b'{"status": "ready"')
    except (OSError, http.client.HTTPException):
        break
    print(time.perf_counter() - start, int(ready), flush=True)
    time.sleep(0.02)
"""
"""A client of its own process, so that the others' work is not taken for the server's."""


def enlarged(path: Path) -> bytes:
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").resize((4000, 3000)).save(buffer, "JPEG")
    return buffer.getvalue()


def main(data: Path, out: Path, count: int) -> None:
    paths = sorted((data / "imagenet-500").glob("*/*"))[: count * 3 // 5]
    paths = [paths[i % len(paths)] for i in range(min(count * 3 // 5, 500))]
    images = [path.read_bytes() if i % 25 else enlarged(path) for i, path in enumerate(paths)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "published.sqz"
        container.write(published(data), file)
        classifier = load(file, 1)
        tops = [classifier(image) for image in images]
        expected = [([p.index for p in top], [p.probability for p in top]) for top in tops]
        requests = mixed(count, images, expected, most_bytes=MOST_BYTES, most_pixels=MOST_PIXELS)
        forms = list(hostile_forms(MOST_BYTES - 1000).items())
        for i, place in enumerate(range(0, count, FORMS_EVERY)):
            kind, (body, sentence) = forms[i % len(forms)]
            wanted = refused(400, sentence)
            requests[place] = Request(f"form: {kind}", posted(body, is_form=True), wanted)
        options = ("--timeout", SECONDS, "--max-bytes", MOST_BYTES, "--max-pixels", MOST_PIXELS)
        outcomes = []
        with server(file, *options) as (process, address):
            resident, descriptors = [resident_bytes(process)], [_descriptors(process)]
            asking = subprocess.Popen(
                [sys.executable, "-c", ASK_HEALTH, *map(str, address)],
                stdout=subprocess.PIPE,
                text=True,
            )
            health = []
            reader = threading.Thread(target=lambda: health.extend(asking.stdout))
            reader.start()
            for start in range(0, count, BLOCK):
                outcomes += send_all(address, requests[start : start + BLOCK], CLIENTS)
                resident.append(resident_bytes(process))
                descriptors.append(_descriptors(process))
                print(f"{len(outcomes)} of {count}: {resident[-1] / 1e6:.0f} MB", file=sys.stderr)
            with urllib.request.urlopen("http://{}:{}/metrics".format(*address)) as response:
                metrics = response.read().decode()
            asking.kill()
            reader.join()
            asking.wait()
            exit_status, said = stopped(process)
    good = [outcome.seconds for outcome in outcomes if outcome.kind == "good"]
    p50, p90, p99 = np.percentile(good, [50, 90, 99])
    asked = np.array([line.split() for line in health if line.endswith("\n")], float)
    health_p50, health_p99 = np.percentile(asked[:, 0], [50, 99])
    kinds = sorted({outcome.kind for outcome in outcomes})
    record(
        out,
        {
            "aiohttp": importlib.metadata.version("aiohttp"),
            "requests": count,
            "clients": CLIENTS,
            "limits": {"body_bytes": MOST_BYTES, "pixels": MOST_PIXELS, "seconds": SECONDS},
            "as_wanted": sum(outcome.as_wanted for outcome in outcomes),
            "kinds": {kind: _kind([o for o in outcomes if o.kind == kind]) for kind in kinds},
            "good_milliseconds": {
                "p50": round(1000 * p50, 1),
                "p90": round(1000 * p90, 1),
                "p99": round(1000 * p99, 1),
                "largest": round(1000 * max(good), 1),
            },
            "health": {
                "requests": len(asked),
                "ready": int(asked[:, 1].sum()),
                "milliseconds": {
                    "p50": round(1000 * health_p50, 1),
                    "p99": round(1000 * health_p99, 1),
                    "largest": round(1000 * asked[:, 0].max(), 1),
                },
            },
            "descriptors": {
                "start": descriptors[0],
                "most": max(descriptors),
                "end": descriptors[-1],
            },
            "resident_bytes": {
                "start": resident[0],
                "after_100": resident[1],
                "end": resident[-1],
                "most": max(resident),
                "after_every_500": resident[5::5],
            },
            "server_counts": {
                line.split('"')[1]: int(float(line.split()[-1]))
                for line in metrics.splitlines()
                if line.startswith("squeezekit_requests_total{")
            },
            "server_exit_status": exit_status,
            "server_said": said,
        },
    )
    print(json.dumps(json.loads(out.read_text()), indent=2))


def _descriptors(process: subprocess.Popen) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def _kind(outcomes: list) -> dict[str, object]:
    statuses = Counter(str(o.status or "closed") for o in outcomes)
    wrong = [o.answer for o in outcomes if not o.as_wanted][:3]
    right = sum(o.as_wanted for o in outcomes)
    counted = {"requests": len(outcomes), "as_wanted": right, "statuses": dict(statuses)}
    return counted | ({"first_wrong": wrong} if wrong else {})


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.requests)
