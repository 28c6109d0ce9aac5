"""Writes the table of metrics in `docs/observability.md` from `shared/telemetry/metrics.py`.

python -m scripts.metrics_table            writes it between the markers
python -m scripts.metrics_table --check    says whether it is out of date, and exits with 1
"""

from __future__ import annotations

import sys
from pathlib import Path

from shared.telemetry.metrics import Metrics

FILE = Path(__file__).parents[1] / "docs" / "observability.md"
START, END = "<!-- metrics: start -->", "<!-- metrics: end -->"
HEAD = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|"


def table() -> str:
    """The metrics as Markdown, in the order in which they are declared."""
    lines = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} |"
        f" {metric.meaning} |".replace("|  |", "| |")
        for metric in Metrics().all
    ]
    return "\n".join([HEAD, *lines])


def main(arguments: list[str]) -> int:
    text = FILE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"metrics_table: {FILE.name} lacks the markers {START} and {END}")
    written = f"{before}{START}\n{table()}\n{END}{after}"
    if "--check" in arguments:
        if written != text:
            print(
                f"metrics_table: {FILE.name} is out of date: python -m scripts.metrics_table", file=sys.stderr
            )
        return int(written != text)
    FILE.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
