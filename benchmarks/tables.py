"""Reports as text and as JSON."""

from __future__ import annotations

from typing import Any

from .measuring import Report, Row

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def seconds(value: float) -> str:
    """A time in the unit that suits it, with three digits."""
    factor, unit = next((pair for pair in UNITS if value >= pair[0]), UNITS[-1])
    scaled = value / factor
    return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"


def as_text(report: Report) -> str:
    """Title, table, targets, notes."""
    found = dict.fromkeys(name for row in report.rows for name in row.figures())
    figures = [name for name in found if name not in report.hidden]
    head = ["", "N", "each", "min..max", "ratio", "of best"]
    head += ["MB/s"] * (report.size is not None) + figures
    reference = next((row for row in report.rows if row.samples), None)
    rows = [head, *(_cells(row, report, reference, figures) for row in report.rows)]
    title = f"== {report.name}: {report.title} ({report.seconds:.0f} s)"
    parts = [title, f"   {report.how}", columns(rows)]
    parts += [f"   [{t.verdict}] {t.text}: {t.shown}" for t in report.targets]
    parts += ["   Note: " + note.replace("\n", "\n         ") for note in report.notes]
    return "\n".join(parts) + "\n"


def _cells(row: Row, report: Report, reference: Row | None, figures: list[str]) -> list[str]:
    each = row.median
    if each is None:
        blank = [""] * (3 + (report.size is not None) + len(figures))
        return [row.name, str(row.count), "failed" if row.problem else "-", *blank]
    cells = [
        row.name,
        str(row.count),
        seconds(each),
        f"{seconds(min(row.each))}..{seconds(max(row.each))}",
        f"{each / reference.median:.3g}" if reference and reference.median else "",
        f"{min(row.each) / min(reference.each):.3g}" if reference and reference.each else "",
    ]
    if report.size is not None:
        cells.append(f"{report.size / each / 1e6:.0f}" if each else "")
    values = row.figures()
    return cells + [_number(values[name]) if name in values else "" for name in figures]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def columns(rows: list[list[str]]) -> str:
    """Cells below each other, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   "
        + "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_json(report: Report) -> dict[str, Any]:
    """The same, with every sample."""
    return {
        "name": report.name,
        "title": report.title,
        "how": report.how,
        "bytes_each": report.size,
        "rows": [
            {
                "name": row.name,
                "count": row.count,
                "seconds_each": row.median,
                "samples": row.each,
                "figures": row.figures(),
                "problem": row.problem or None,
            }
            for row in report.rows
        ],
        "targets": [
            {
                "text": target.text,
                "value": target.value,
                "bound": target.bound,
                "at_least": target.at_least,
                "unit": target.unit,
                "verdict": target.verdict,
            }
            for target in report.targets
        ],
        "notes": report.notes,
        "seconds": report.seconds,
    }
