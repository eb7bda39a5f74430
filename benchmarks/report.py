"""Results as Markdown between two markers of RESULTS.md, and as plots."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

BEGIN, END = "<!-- begin: python -m benchmarks -->", "<!-- end: python -m benchmarks -->"


def markdown(results: dict[str, Any]) -> str:
    """The whole section.

    Args:
        results: {"machine", "date", "command", "contests"}.

    Returns:
        Markdown.
    """
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        f"`{results['command']}`, {results['date']}, on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory, GB']} GB; {machine['cores']} threads for everyone. Python {machine['python']}, {versions}.",
        "",
        "Each contestant is a process of its own, set up before the clock runs; they take turns. Medians, quartiles in "
        "brackets. A ratio above 1 means that ours is faster. Answers are compared: who disagrees is out.",
        "",
    ]
    for result in results["contests"]:
        lines += [*table(result), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(result: dict[str, Any]) -> list[str]:
    """Lines of one contest."""
    per = result["per"]
    head = [result["title"], "time", *([f"{per}, time of one"] if per else []), "ratio to the first", "goal"]
    lines = [f"**{head[0]}**", "", "| " + " | ".join(["", *head[1:]]) + " |", "|---" * len(head) + "|"]
    for row in result["rows"]:
        if "error" in row:
            cells = [row["name"], row["error"].replace("|", "/"), *([""] * (len(head) - 2))]
        else:
            time = f"{duration(row['median'])} ({duration(row['low'])} - {duration(row['high'])})"
            counted = [f"{row['count']:.0f}, {duration(row['median'] / row['count'])}"] if per else []
            ratio = f"{row['ratio']:,.2f}" if "ratio" in row else ""
            cells = [row["name"], time, *counted, ratio, verdict(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [""] if result["facts"] or result["note"] else []
    lines += [
        f"- ours, {fact['name']}: {fact['value']:,.1f}" + (f" ({verdict(fact)})" if "goal" in fact else "")
        for fact in result["facts"]
    ]
    peaks = [row for row in result["rows"][1:] if "peak memory, MiB" in row.get("facts", {})]
    lines += [f"- {row['name']}, peak memory, MiB: {row['facts']['peak memory, MiB']:,.1f}" for row in peaks]
    return lines + [result["note"]] * bool(result["note"])


def verdict(value: dict[str, Any]) -> str:
    """The goal, and whether it is met."""
    return f"{value['goal']}: {'met' if value['met'] else '**not met**'}" if "goal" in value else ""


def duration(seconds: float) -> str:
    """Three digits, in ms or s."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def put_into(file: Path, section: str) -> None:
    """Replace what stands between the markers."""
    before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{file} needs the lines {BEGIN} and {END}")
    file.write_text(f"{before}{BEGIN}\n\n{section}\n{END}{after}", encoding="utf-8")


def plot_ratios(file: Path, contests: list[dict[str, Any]]) -> None:
    """How many times our time each peer takes, on a logarithmic axis, a panel a contest."""
    shown = [result for result in contests if result["better"] == "up"]
    if not shown:
        return
    longest = max((row["ratio"] for result in shown for row in result["rows"] if "ratio" in row), default=1)
    heights = [sum("ratio" in row for row in result["rows"]) for result in shown]
    figure, panels = plt.subplots(
        len(shown),
        figsize=(9, 0.26 * sum(heights) + 0.62 * len(shown)),
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": [max(height, 1) for height in heights]},
        layout="constrained",
    )
    for panel, result in zip(panels[:, 0], shown, strict=True):
        rows = [row for row in result["rows"] if "ratio" in row]
        names, ratios = [row["name"] for row in rows], [row["ratio"] for row in rows]
        colors = ["#3b6ea5", *("#b0b0b0" if ratio >= 1 else "#d08a3e" for ratio in ratios[1:])]
        bars = panel.barh(names, [ratio - 0.1 for ratio in ratios], left=0.1, color=colors)
        panel.bar_label(bars, [f"{ratio:,.2f}" for ratio in ratios], padding=3, fontsize=8)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xlim(0.1, 3 * longest)
        panel.invert_yaxis()
        panel.set_title(result["title"], loc="left", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("time in units of ours: right of the line ours is faster", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def plot_scaling(file: Path, result: dict[str, Any]) -> None:
    """Time and memory against the number of pictures."""
    rows = [row for row in result["rows"] if "median" in row]
    counts = [int(row["name"].split()[0]) for row in rows]
    order = sorted(range(len(counts)), key=counts.__getitem__)
    x = [counts[i] for i in order]
    figure, (time, memory) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    time.plot(x, [rows[i]["median"] for i in order], "o-", color="#3b6ea5")
    time.set_ylabel("seconds")
    memory.plot(x, [rows[i]["facts"]["peak memory, MiB"] for i in order], "o-", color="#3b6ea5")
    memory.set_ylabel("peak memory, MiB")
    for panel in (time, memory):
        panel.set_xlabel("pictures")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(result["title"], fontsize=10)
    figure.savefig(file, dpi=110)
    plt.close(figure)
