"""Whether we got slower: ratios beside those that were committed, on the same kind of machine."""

from typing import Any


def slower(now: dict[str, Any], before: dict[str, Any], *, allowed: float = 20) -> list[str]:
    """A line for each ratio of a contest that got worse by more than is allowed, even at the better of its quartiles.

    Rows that either lacks are left out, and those that were timed once, of which no spread is known.

    Args:
        now: results of a contest, from `contest.hold`.
        before: those of the same contest that were committed.
        allowed: per cent.

    Returns:
        Lines; none of a contest whose ratios have no better and worse.
    """
    if not now["better"]:
        return []
    lines, rows = [], {row["name"]: row for row in now["rows"]}
    for old in before["rows"]:
        new = rows.get(old["name"], {})
        if "ratio" not in old or old is before["rows"][0] or "ratio" not in new or new["turns"] == 1:
            continue
        own = now["rows"][0]
        if now["better"] == "up":
            worse = old["ratio"] / (new["ratio"] * new["high"] / new["median"] * own["median"] / own["low"])
        else:
            worse = new["ratio"] * new["low"] / new["median"] * own["median"] / own["high"] / old["ratio"]
        if worse > 1 + allowed / 100:
            lines.append(
                f"{now['title']}: {old['name']} was {old['ratio']:.3g} times ours, is now {new['ratio']:.3g}: "
                f"{100 * (worse - 1):.0f} % worse"
            )
    return lines


def errors(result: dict[str, Any]) -> list[str]:
    """A line for ours when it failed, and for each answer that disagrees. A peer that does not run is only missing."""
    first, *others = result["rows"]
    wrong = [first] * ("error" in first) + [row for row in others if row.get("error", "").startswith("disagrees")]
    return [f"{result['title']}: {row['name']} {row['error']}" for row in wrong]
