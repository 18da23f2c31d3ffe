"""Two records of a test: a line to search for with grep, and a summary that is equal byte for byte when made again."""

import hashlib
import json
from pathlib import Path

from torch import Tensor

from mhsvm.metrics import summarize
from mhsvm.text_file import read_json, write_json

SCHEMA = 2
TABLES = ("cases.csv", "cases_native.csv", "raters.csv")
_SUMMARY = "summary"


def result_line(loss: float, counts: Tensor, confusion: Tensor) -> str:
    """The line that users of the published projects search for with grep.

    Args:
        loss: Mean loss per image.
        counts: (n, c, 4), see `mhsvm.metrics.class_counts`; metrics are pooled and averaged over classes.
        confusion: (k, k) of all images; rows are targets, columns are predictions: [[tn, fp], [fn, tp]].
    """
    pooled = summarize(counts)
    return (
        f"test of best model, loss: {loss:.4f},miou: {pooled['miou']:.6f}, f1_or_dsc: {pooled['dsc']:.6f}, "
        f"accuracy: {pooled['accuracy']:.6f}, specificity: {pooled['specificity']:.6f}, "
        f"sensitivity: {pooled['sensitivity']:.6f}, confusion_matrix: {confusion.tolist()}"
    )


def write_summary(path: Path, content: dict) -> None:
    """Write a summary as JSON after its schema version; keys keep their order.

    Its last entry has sha256 checksums: of the tables of cases in the same folder, which are written before, and of the
    summary itself without this entry.
    """
    content = {"schema": SCHEMA, **content}
    tables = {name: _checksum(path.with_name(name).read_bytes()) for name in TABLES if path.with_name(name).is_file()}
    write_json(path, {**content, "checksums": {**tables, _SUMMARY: _own_checksum(content)}})


def read_summary(path: Path, *, remedy: str = "test or score again") -> dict:
    """Read a summary and verify it and the tables of cases beside it; those of older versions have no checksums.

    Args:
        path: The file.
        remedy: Fix for damage, for the message.
    Raises:
        ValueError: It is no summary, is of a later version, or it or a table was changed.
    """
    summary = read_json(path, remedy=remedy)
    schema = summary.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise ValueError(f"{path} has schema {schema}, this version of mhsvm reads up to {SCHEMA}: {remedy}")
    recorded = summary.pop("checksums", None)
    if recorded is None:
        return summary
    changed = [path] if recorded.get(_SUMMARY) != _own_checksum(summary) else []
    tables = [path.with_name(name) for name in TABLES if name in recorded and path.with_name(name).is_file()]
    changed += [table for table in tables if _checksum(table.read_bytes()) != recorded[table.name]]
    if changed:
        raise ValueError(
            f"{' and '.join(map(str, changed))} changed after the measurement, so that the checksum is wrong: {remedy}"
        )
    return summary


def _own_checksum(content: dict) -> str:
    return _checksum(json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode())


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
