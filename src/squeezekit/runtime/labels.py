"""Names of classes from label files, for networks that come without any."""

from __future__ import annotations

import json
import re
from pathlib import Path

from squeezekit.errors import InputError
from squeezekit.text import encodable

Labels = tuple[tuple[str, ...], tuple[str, ...]]
"""(labels, label_ids): one of each a class, in the order of the outputs; ids may be empty."""

_FOUND_BY_NAME = (
    "labels.txt", "labels.tsv", "classes.txt", "classes.tsv", "imagenet-classes.tsv"
)  # fmt: skip
_WORDNET_ID = re.compile(r"n\d{8}")
_SYNSET_LINE = re.compile(r"(n\d{8})\s+(\S.*)")


def read_labels(path: Path | str) -> Labels:
    """Read the names of the classes, and their ids where the file has them.

    - `.txt`: a name a line, or "n01440764 tench, Tinca tinca" (Caffe's synset_words.txt);
    - `.tsv`: "index<TAB>id<TAB>name" or "index<TAB>name", with or without a first line of titles;
    - `.json`: a list of names, or an object from the index to a name or to [id, name] (Keras).

    Raises:
        InputError: if the file is missing, no text, empty, or none of these forms.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"the labels file {path} cannot be read ({reason})") from None
    if b"\0" in data:  # UTF-16, or no text at all
        raise InputError(f"the labels file {path} cannot be read (it is not UTF-8)")
    # Names of folders may be of any bytes, and lists of them are made by `ls`.
    text = encodable(data.decode("utf-8-sig", "surrogateescape"))
    readers = {".txt": _from_lines, ".tsv": _from_table, ".json": _from_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"the labels file {path} is none of {', '.join(readers)}")
    try:
        labels, label_ids = reader(text)
    except ValueError as error:
        raise InputError(f"the labels file {path} cannot be used: {error}") from None
    if not labels:
        raise InputError(f"the labels file {path} is empty")
    return labels, label_ids


def fitted(labels: Labels, classes: int) -> Labels | None:
    """Labels for a network with `classes` outputs; None if their number differs.

    TensorFlow's networks for ImageNet have one more output, before all others, for images of no
    class. If WordNet ids show that the labels are ImageNet's 1,000, it is called "background".
    """
    names, label_ids = labels
    if len(names) == classes:
        return labels
    imagenet = len(label_ids) == 1000 and all(map(_WORDNET_ID.fullmatch, label_ids))
    if classes == 1001 and imagenet:
        return ("background", *names), ("background", *label_ids)
    return None


def find_labels(data_dir: Path | str, classes: int) -> Labels | None:
    """Look for a labels file (see `labels_files`) with as many names as a network has outputs.

    Returns:
        The first labels that are `fitted` to `classes`, or None.

    Raises:
        InputError: if a file with such a name cannot be read.
    """
    for path in labels_files(data_dir):
        if (found := fitted(read_labels(path), classes)) is not None:
            return found
    return None


def labels_files(data_dir: Path | str) -> list[Path]:
    """The files called labels.txt, labels.tsv, classes.txt, classes.tsv or imagenet-classes.tsv.

    Those in the folder come first, then those in the one that holds it.
    """
    folder = Path(data_dir).resolve()
    paths = [place / name for place in (folder, folder.parent) for name in _FOUND_BY_NAME]
    return [path for path in paths if path.is_file()]


def _from_lines(text: str) -> Labels:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is empty")
    synsets = [_SYNSET_LINE.fullmatch(line) for line in lines]
    if lines and all(synsets):
        return (
            tuple(match[2] for match in synsets if match),
            tuple(match[1] for match in synsets if match),
        )
    return tuple(lines), ()


def _from_table(text: str) -> Labels:
    lines = [line.rstrip("\r") for line in text.rstrip().split("\n")]
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    if len(rows[0]) > 1 and not rows[0][0].isdecimal():
        rows = rows[1:]
    by_index: dict[int, list[str]] = {}
    for row in rows:
        if len(row) not in (2, 3) or not row[0].isdecimal() or "" in row:
            raise ValueError(f"{row!r} is not an index, an id and a name between tabs")
        _add(by_index, int(row[0]), row[1:])
    return _in_order(by_index)


def _from_json(text: str) -> Labels:
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(content, list):
        content = {str(index): name for index, name in enumerate(content)}
    if not isinstance(content, dict):
        raise ValueError("it is neither a list nor an object")
    by_index: dict[int, list[str]] = {}
    for index, names in content.items():
        names = names if isinstance(names, list) else [names]
        if not index.isdecimal() or len(names) not in (1, 2) or not _all_named(names):
            raise ValueError(f"{index!r}: {names!r} is not an index with a name or [id, name]")
        _add(by_index, int(index), names)
    return _in_order(by_index)


def _all_named(names: list[object]) -> bool:
    return all(isinstance(name, str) and name.strip() for name in names)


def _add(by_index: dict[int, list[str]], index: int, names: list[str]) -> None:
    if index in by_index:
        raise ValueError(f"index {index} is there twice")
    by_index[index] = names


def _in_order(by_index: dict[int, list[str]]) -> Labels:
    rows = [names for _, names in sorted(by_index.items())]
    if sorted(by_index) != list(range(len(rows))):
        raise ValueError("the indices are not 0, 1, 2 ... without a gap")
    if len({len(names) for names in rows}) > 1:
        raise ValueError("only some of the classes have an id")
    label_ids = tuple(names[0] for names in rows if len(names) == 2)
    return tuple(names[-1] for names in rows), label_ids
