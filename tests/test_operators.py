"""docs/operators.md says what each executor has, and each of them agrees with ONNX Runtime."""

from operator_table import DOCUMENT, missing, rewritten, table


def test_every_operator_is_tried():
    assert missing() == []


def claims():
    """The cells of the document's tables, by line."""
    lines = DOCUMENT.read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in rows if row[0] != "operator" and set(row[0]) != {"-"}]


def test_the_document_claims_what_is_so():
    """If not: python tests/operator_table.py (with src in PYTHONPATH) writes it anew."""
    stated = {(row[0], row[1]): row[2:] for row in claims() if len(row) == 5}
    found = table()
    assert stated.keys() == {(op, use) for op, use, _, _ in found}
    for op, use, in_torch, in_c in found:
        runtime, torch, c = stated[op, use]
        assert (runtime, torch) == ("yes", "yes" if in_torch else "no"), (op, use)
        assert in_c or c == "no", (op, use)  # the C library may have learned more since


def test_what_becomes_of_foreign_operators():
    stated = {row[0]: row[1].split(", ") for row in claims() if len(row) == 2}
    assert stated == rewritten()
