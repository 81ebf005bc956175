"""Tables, figures and pages say what they were given, whatever it is."""

import html
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from squeezekit.compression.prune import prune, uniform
from squeezekit.compression.share import share
from squeezekit.errors import NotSqzError
from squeezekit.evaluation import Evaluation
from squeezekit.models import catalogue
from squeezekit.models.cost import cost
from squeezekit.report import answers, figures, numbers, tables
from squeezekit.report.contents import contents
from squeezekit.report.mistakes import worst_mistakes
from squeezekit.report.page import Report, Step, page, write_page
from squeezekit.report.progress_bar import progress_bar
from squeezekit.runtime.classifier import Prediction
from squeezekit.sqz import container
from squeezekit.sqz.network import Metadata, Preprocessing, SharedTensor

NASTY = '<script>alert("1 & 2")</script> $x$ [red]'


@dataclass(frozen=True)
class Stage:
    name: str
    file_bytes: int
    top1: float | None = 50.0
    top5: float | None = 90.0


@dataclass(frozen=True)
class Epoch:
    epoch: int
    train_top1: float
    val_top1: float | None


def printed(renderable, width=160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def small_file() -> bytes:
    network = catalogue.create("squeezenet-digits", labels=tuple("0123456789"))
    return container.encode(share(prune(network, uniform(network, 0.3)), 4))


def evaluation(targets, predicted, paths=None, confidence=None) -> Evaluation:
    targets, predicted = np.array(targets), np.array(predicted)
    right = 100 * float((targets == predicted).mean())
    return Evaluation(
        top1=right,
        top5=right,
        images=len(targets),
        skipped=(),
        seconds=1.0,
        targets=targets,
        ranked=predicted[:, np.newaxis],
        confidence=np.full(len(targets), 0.5, np.float32)
        if confidence is None
        else np.array(confidence, np.float32),
        paths=paths or tuple(Path(f"{i}.png") for i in range(len(targets))),
    )


# ------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (33_210, "33.2 kB"), (999_600, "1.00 MB"),
     (4_993_696, "4.99 MB"), (243_860_896, "244 MB"), (2_500_000_000, "2.50 GB")],
)  # fmt: skip
def test_size(value, text):
    assert numbers.size(value) == text


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (numbers.many, 861_324_832, "861 M"),
        (numbers.many, 640, "640"),
        (numbers.times, 37.73, "37.7x"),
        (numbers.times, 510.4, "510x"),
        (numbers.percent, None, "-"),
        (numbers.percent, 64.2, "64.2"),
        (numbers.points, 0.04, "0.0"),
        (numbers.points, -0.04, "0.0"),
        (numbers.points, -1.26, "−1.3"),
        (numbers.points, 0.3, "+0.3"),
        (numbers.duration, 9.31, "9.3 s"),
        (numbers.duration, 93.4, "93 s"),
        (numbers.duration, 179.7, "3 min 0 s"),
        (numbers.shown, "a\x1b[31mb\u202ec", "a\ufffd[31mb\ufffdc"),
    ],
)
def test_numbers(write, value, text):
    assert write(value) == text


# ------------------------------------------------------------------------------------ contents


def test_contents_account_for_every_byte(small_file):
    found = contents(small_file)
    assert found.file_bytes == len(small_file)
    assert found.header_bytes + found.head_bytes + found.payload_bytes == len(small_file)
    network = container.decode(small_file)
    assert (found.parameters, found.nonzero) == (network.parameters, network.nonzero)
    for tensor in found.tensors:
        original = network.tensors[tensor.name]
        assert tensor.shape == original.shape
        if isinstance(original, SharedTensor):
            assert tensor.centroids == len(original.centroids)
    as_json = found.as_json()
    listed = sum(tensor["payload_bytes"] for tensor in as_json["tensors"])
    assert as_json["header_bytes"] + sum(as_json["head_parts"].values()) + listed == len(small_file)


def test_contents_of_something_else():
    with pytest.raises(NotSqzError):
        contents(b"no file of ours")


# -------------------------------------------------------------------------------------- tables


def test_info_table_adds_up(small_file):
    rows = printed(tables.info_table(contents(small_file)), width=80).splitlines()
    parts = [int(m[1].replace(",", "")) for r in rows if (m := re.search(r"([\d,]+) +\S+% *$", r))]
    assert parts[-1] == len(small_file) == sum(parts[:-1])


def test_cost_table_is_table_1_in_80_columns():
    text = printed(tables.cost_table(cost(catalogue.create("squeezenet-1.0"))), width=80)
    for row in (
        r"conv1 +96x109x109 +96 +100 +14,208 ",
        r"fire2 +128x54x54 +16/64/64 +100/100/100 +11,920 ",
        r"fire9 +512x13x13 +64/256/256 +100/100/100 +197,184 ",
        r"total +\d+ +1,248,424 +[\d,]+ +819 M +4,994",
    ):
        assert re.search(row, text), row


def test_stage_table():
    stages = [Stage("float32", 1000, 98.0), Stage(NASTY, 100, 96.5), Stage("coded", 25, None)]
    rows = printed(tables.stage_table(stages, 1000)).splitlines()
    assert re.search(r"float32 +1,000 +1.0x +98.0 +90.0 +0.0", rows[2])
    assert NASTY in rows[3]
    assert re.search(r" 100 +10.0x +96.5 +90.0 +−1.5", rows[3])
    assert re.search(r"coded +25 +40.0x +- +90.0 +-", rows[4])


def test_predictions_text():
    predictions = [
        Prediction(NASTY, "", 3, 0.75), Prediction("b\x1b]0;x", "", 4, 0.2),
        Prediction("金魚" * 15, "", 5, 0.05), Prediction("c", "", 6, 0.0),
    ]  # fmt: skip
    text = answers.predictions_text("[bold]photo.jpg\x1b[2J", predictions, colored=False)
    first, *lines = text.splitlines()
    assert first.startswith("[bold]photo.jpg")
    assert "75.0%" in lines[0]
    assert "\x1b" not in text
    assert [line.count("█") for line in lines] == [18, 4, 1, 0]  # of 24
    # rich, which knows the width of every character, sees straight columns of at most 40.
    ends = {cell_len(line.partition("%")[0]) for line in lines}
    assert len(ends) == 1
    assert ends.pop() <= 46
    assert "魚金…" in text
    colored = answers.predictions_text("photo.jpg", predictions, colored=True)
    plain = answers.predictions_text("photo.jpg", predictions, colored=False)
    assert Text.from_ansi(colored).plain.split() == plain.split()
    assert colored.count("\x1b") == colored.count("\x1b[")  # colours only


def test_evaluation_table():
    text = printed(tables.evaluation_table(evaluation([0, 1, 1, 1], [0, 1, 1, 0]), 1234))
    assert "75.00%" in text
    assert "1,234 bytes" in text
    assert "skipped" not in text


def test_models_table():
    models = {"m": {"description": "[d]", "input_size": 8, "parameters": 250_000}}
    text = printed(tables.models_table(models))
    assert re.search(r"m +8x8 +250,000 +1.0 +\[d\]", text)


# ------------------------------------------------------------------------------------- figures


def svg_texts(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("text")]


def test_figures_are_svg_without_addresses():
    stages = [Stage("float32", 1_000_000, 98.0), Stage("coded", 30_000, 97.5)]
    epochs = [Epoch(i + 1, 90.0 + i, 89.0 + i) for i in range(5)]
    drawn = [
        figures.bytes_per_layer([figures.LayerBytes("conv1", 4000, 100)]),
        figures.bytes_and_accuracy(stages),
        figures.learning_curve(epochs),
        figures.confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), ["a", "b"]),
    ]
    for svg in drawn:
        root = ET.fromstring(re.sub(r"xlink:href", "href", svg))
        assert root.tag == "svg"
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "http" not in svg
        # Each colour is one of the page's, so that it is readable in light and dark.
        assert not re.search(r"(?<!, )#[0-9a-f]{6}", svg)
    ids = [i for svg in drawn for i in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))


def test_figures_do_not_change_from_run_to_run():
    layers = [figures.LayerBytes("conv1", 4000, 100), figures.LayerBytes("fire2", 90, 10)]
    assert figures.bytes_per_layer(layers) == figures.bytes_per_layer(layers)


def test_unknown_accuracy_is_not_drawn():
    assert figures.bytes_and_accuracy([Stage("float32", 100, None)]) == ""


def test_one_epoch_and_no_validation_are_drawn():
    assert figures.learning_curve([Epoch(1, 40.0, None)]).startswith("<svg")


def test_many_layers_become_few():
    sizes = {f"layer{i}.weight": (1000 + i, 10) for i in range(60)}
    layers = figures.layer_bytes(sizes | {"layer59.bias": (4, 4)})
    assert len(layers) == figures.MOST_LAYERS
    assert sum(layer.float_bytes for layer in layers) == sum(s[0] for s in sizes.values()) + 4
    assert layers[-1].name == "37 smaller layers"
    assert layers[-2].name == "layer59"


def test_confusion_matrix_counts():
    svg = figures.confusion_matrix(
        np.array([0] * 13 + [1] * 27), np.array([0] * 11 + [1] * 2 + [1] * 27), ["cat", "dog"]
    )
    texts = svg_texts(svg)
    assert [t for t in texts if t.isdigit()] == ["11", "2", "27"]
    assert "2 times) cat was taken for dog" in svg


def test_confusion_matrix_of_many_classes_is_not_drawn():
    labels = [str(i) for i in range(figures.MOST_CLASSES + 1)]
    targets = np.arange(len(labels))
    assert figures.confusion_matrix(targets, targets, labels) == ""


@settings(max_examples=10, deadline=None)
@given(st.text(max_size=12), st.integers(2, figures.MOST_CLASSES))
def test_any_label_can_be_drawn(label, classes):
    labels = [label, *(str(i) for i in range(1, classes))]
    targets = np.arange(classes)
    svg = figures.confusion_matrix(targets, np.zeros(classes, np.int64), labels)
    assert numbers.shown(label)[:13].strip() in "\n".join(svg_texts(svg))


# ---------------------------------------------------------------------------- mistakes and page


def test_worst_mistakes_come_worst_first(tmp_path):
    for name, size in (("small", (8, 8)), ("large", (300, 200))):
        Image.new("L", size, 90).save(tmp_path / f"{name}.png")
    paths = tuple(tmp_path / f"{name}.png" for name in ("small", "right", "large", "gone"))
    result = evaluation([0, 1, 0, 1], [1, 1, 1, 0], paths, confidence=[0.6, 1.0, 0.9, 0.7])
    mistakes = worst_mistakes(result, ["a", "b"])
    assert [m.path.stem for m in mistakes] == ["large", "gone", "small"]
    assert [(m.truth, m.predicted) for m in mistakes] == [("a", "b"), ("b", "a"), ("a", "b")]
    assert mistakes[0].image.startswith("data:image/jpeg;base64,")
    assert mistakes[1].image == ""
    assert mistakes[2].image.startswith("data:image/png;base64,")
    assert mistakes[2].pixelated
    assert len(worst_mistakes(result, ["a", "b"], count=1)) == 1


def a_report(file: bytes, **changes) -> Report:
    found = contents(file)
    values = {
        "file_name": "digits.sqz",
        "file": found,
        "evaluation": evaluation(np.arange(10), np.arange(10)),
        "labels": found.metadata.labels,
        "stages": [Stage("float32", 900_000, 98.0), Stage("coded", len(file), 97.5)],
        "cost": cost(container.decode(file)),
        "epochs": [],
        "made": {"command": "squeezekit demo"},
        "next_steps": [Step("Train", "squeezekit train")],
    }
    return Report(**(values | changes))


def test_page_escapes_everything(small_file):
    path = (Path(f"{NASTY.replace('/', '')}.png"),)
    html = page(
        a_report(
            small_file,
            file_name=NASTY,
            labels=[NASTY, *"123456789"],
            evaluation=evaluation([0], [1], path),
            stages=[Stage(NASTY, 10), Stage("coded", 5)],
            made={NASTY: NASTY, "command": NASTY},
            next_steps=[Step(NASTY, NASTY)],
        )
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_page_without_mistakes_accuracy_or_training(small_file):
    html = page(a_report(small_file, stages=[Stage("float32", 10, None), Stage("coded", 5, None)]))
    assert "all 10 images were classified right" in html
    assert "Size against accuracy" not in html
    assert "The training before that" not in html


def test_page_is_written(small_file, tmp_path):
    report = a_report(small_file)
    write_page(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(report)


# ------------------------------------------------------------------------------------ progress


def test_progress_without_a_terminal_is_a_line_a_task():
    console = Console(file=io.StringIO(), width=80)
    with progress_bar(console) as progress:
        for step in range(4):
            progress("[training]", step, 3)
            for image in range(6):
                progress("evaluate", image, 5)  # a part of the training
        progress("[training]", 3, 3)
        progress("evaluate", 0, 1)
        progress("evaluate", 1, 1)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [
        "[training]",
        "evaluate",
        "[training]",
        "evaluate",
    ]


def test_progress_on_a_terminal_leaves_the_same_lines():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with progress_bar(console) as progress:
        progress("decoding", 0, 10)  # a part that never says it is done
        progress("training", 0, 2)
        progress("decoding", 10, 10)
        progress("training", 2, 2)
    text = console.file.getvalue()
    assert "✓ decoding" in text
    assert "✓ training" in text


def test_a_curve_has_the_command_for_each_point(tmp_path):
    from squeezekit.compression.curve import CurvePoint
    from squeezekit.compression.stages import Stage as CompressionStage
    from squeezekit.report.curve_report import write_curve_report

    points = [CurvePoint(1e-8 * size, size, 0.1, 50.0, 90.0) for size in (3000, 9000, 5000)]
    metadata = Metadata("net", Preprocessing(8, 8), title="<my shop>")
    page = tmp_path / "curve.html"
    original = CompressionStage("float32", None, 40_000, 60.0, 95.0, 1.0)
    command = "squeezekit compress run --data 'my photos' --curve=curve.html --max-drop 2 -o a.sqz"
    write_curve_report(page, points, original, metadata, command=command, seconds=1.0)
    text = html.unescape(page.read_text())
    expected = [
        f"squeezekit compress run --data 'my photos' -o a.sqz --target-bytes {size}"
        for size in (9000, 5000, 3000)
    ]
    assert [text.index(line) for line in expected] == sorted(map(text.index, expected))
    assert "<my shop>" not in page.read_text()
    told = json.loads(page.with_suffix(".json").read_text())["points"]
    assert [point["file_bytes"] for point in told] == [9000, 5000, 3000]
