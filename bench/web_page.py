"""The web page in headless Chromium against ONNX Runtime: same answers, how fast, how many bytes.

    python bench/web_page.py [--images 100]

Needs playwright and chromium. Every image is handed to the page as a PNG, so that both sides see
the same pixels; then once more as the JPEG that it is, decoded by the browser.
"""

import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from common import options, published, record

from squeezekit.interop import page_file
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import open_image, prepare
from squeezekit.sqz import container


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def main():
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=100)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    network = published(args.data)
    metadata = network.metadata
    sqz = container.encode(network)
    page = page_file.page(sqz)
    classifier = from_network(network, 1)
    paths = sorted((args.data / "imagenet-500").glob("*/*"))
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, args.images).astype(int)]

    milliseconds, differences, same_top5, same_from_jpeg, requests = [], [], 0, 0, []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8", newline="")
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        tab = browser.new_context(offline=True).new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        ready_ms = tab.evaluate("() => ready.then(() => performance.now())")
        for source in paths:
            image = open_image(source)
            expected = classifier.logits(prepare(image, metadata.preprocessing)[None])[0]
            best = np.argsort(-expected, kind="stable")[:5]
            for data in (png(image), source.read_bytes()):
                file = {"name": "photo", "mimeType": "image/png", "buffer": data}
                tab.set_input_files("#file", file)
                got = np.array(tab.evaluate("() => turn.then(outputs => [...outputs])"))
                same = np.argsort(-got, kind="stable")[:5].tolist() == best.tolist()
                if data[:4] != b"\x89PNG":
                    same_from_jpeg += same
                    continue
                same_top5 += same
                differences.append(float(abs(got - expected).max()))
                milliseconds.append(int(tab.inner_text("#cost").split(" ms")[0].replace(",", "")))
        chromium = browser.version
        memory = tab.evaluate("wasm.memory.buffer.byteLength")
        browser.close()
    outside = [url for url in requests if not url.startswith(("file:", "blob:"))]
    model_text = len(page_file.as_text(sqz).encode())
    record(
        args.out,
        {
            "chromium": chromium,
            "images": len(paths),
            "same_top5": same_top5,
            "same_top5_jpeg_decoded_by_the_browser": same_from_jpeg,
            "largest_logit_difference": max(differences),
            "milliseconds_median": float(np.median(milliseconds)),
            "milliseconds_mean": round(float(np.mean(milliseconds)), 1),
            "milliseconds_p99": float(np.percentile(milliseconds, 99)),
            "milliseconds_until_ready": round(ready_ms),
            "requests": len(outside),
            "sqz_bytes": len(sqz),
            "page_bytes": len(page.encode()),
            "model_text_bytes": model_text,
            "program_bytes": len(page.encode()) - model_text,
            "webassembly_memory_bytes": memory,
        },
    )


if __name__ == "__main__":
    main()
