"""Results as lines and as a Markdown page."""

from typing import Any

from benchmarks.accelerator.part import Row
from benchmarks.chips import Peaks, roofline
from benchmarks.report import duration

PARITY = ("difference from the CPU", "allowed", "")
TIMES = ("time (quartiles)", "pictures/s", "TFLOP/s", "GB/s", "of the roofline", "")


def with_roofline(row: Row, peaks: Peaks | None) -> Row:
    """The row, with the least time that the device could take for its flops and bytes, if they are known."""
    if not (peaks and "flops" in row):
        return row
    return row | {"least": roofline(row["flops"], row["bytes"], peaks, row["precision"])}


def line(row: Row) -> str:
    """A row for who waits."""
    if "error" in row:
        return row["error"]
    units = (" off", " allowed", "") if "difference" in row else ("", *(f" {unit}" for unit in TIMES[1:-1]), "")
    return "; ".join(f"{cell}{unit}" for cell, unit in zip(_cells(row), units, strict=True) if cell)


def markdown(results: dict[str, Any]) -> str:
    """The whole page.

    Args:
        results: {"machine", "date", "command", "rows"}, and "device", "peaks" and "peaks_from", if they are known.

    Returns:
        Markdown.
    """
    machine, device = results["machine"], results.get("device", {})
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    kind = device.get("kind", "unknown device")
    lines = [f"# {kind}", "", f"`{results['command']}`, {results['date']}: {_facts(device)}."]
    lines += [f"{machine['cpu']}, {machine['cores']} cores. Python {machine['python']}, {versions}."]
    if peaks := results.get("peaks"):
        lines += [f"The roofline is {results['peaks_from']}: {_facts(_with_units(peaks))}."]
    for part in dict.fromkeys(row["part"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["part"] == part]
        head = PARITY if part == "parity" else TIMES
        lines += ["", f"## {part}", "", f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
        for row in rows:
            cells = [row["error"].replace("|", "/"), *[""] * (len(head) - 1)] if "error" in row else _cells(row)
            lines.append(f"| {' | '.join([row['name'], *cells])} |")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    """Of PARITY or of TIMES."""
    if "difference" in row:
        return [f"{row['difference']:.1e}", f"{row['allowed']:g}", "" if row["agrees"] else "**disagrees**"]
    if "seconds" not in row:
        return [*[""] * (len(TIMES) - 1), _facts(row.get("device") or _with_units(row["peaks"]))]
    seconds = row["seconds"]
    return [
        f"{duration(seconds)} ({duration(row['low'])} - {duration(row['high'])})",
        f"{row['pictures'] / seconds:,.1f}" if "pictures" in row else "",
        f"{row['flops'] / seconds / 1e12:,.3g}" if row.get("flops") else "",
        f"{row['bytes'] / seconds / 1e9:,.3g}" if row.get("bytes") else "",
        f"{100 * row['least'] / seconds:.0f} %" if "least" in row else "",
        _facts(row.get("facts", {})),
    ]


def _with_units(peaks: Peaks) -> dict[str, str]:
    tera = {name: f"{value / 1e12:.3g} TFLOP/s" for name, value in peaks.items() if name != "bytes"}
    return tera | {"bytes": f"{peaks['bytes'] / 1e9:.3g} GB/s"}


def _facts(facts: dict[str, Any]) -> str:
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in facts.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())
