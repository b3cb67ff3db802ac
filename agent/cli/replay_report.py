"""`remora replay --report`: what was found, as one HTML file that needs nothing else.

Names come from the data: everything is escaped, and the page has no script.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.errors import BadInputError

if TYPE_CHECKING:
    from detectors import Monitor

FEATURES_MAX: Final = 60
TEMPLATES: Final = Path(__file__).parent / "templates"


def write_report(path: Path, monitor: "Monitor", facts: Mapping[str, Any]) -> None:
    """Write the page; `facts` are what the command prints. Raises BadInputError."""
    from jinja2 import Environment, FileSystemLoader

    drawn = _features(monitor)
    page = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template(
        "replay.html"
    )
    text = page.render(
        **facts,
        digest=monitor.reference.digest,
        reference_rows=monitor.reference.rows,
        features=drawn[:FEATURES_MAX],
        left_out=max(len(drawn) - FEATURES_MAX, 0),
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--report {path}: cannot be written ({error.strerror})") from None


def _features(monitor: "Monitor") -> list[dict[str, Any]]:
    """Features and outputs with their bars, the most drifted first."""
    found = []
    for part in ("features", "prediction"):
        detector = monitor.drift(part)
        if detector is None:
            continue
        shown = detector.distributions()
        for name, figures in detector.effects().items():
            found.append(
                {
                    "name": name,
                    "state": str(figures["state"]),
                    "psi": float(figures["psi"]),
                    "ks": float(figures["ks"]),
                    "missing": float(figures["missing_ratio"]),
                    "bars": _bars(shown[name]),
                }
            )
    return sorted(found, key=lambda feature: -float(feature["psi"]))


def _bars(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    was: Sequence[float] = shown["reference"]
    now: Sequence[float] = shown["current"]
    highest = max([*was, *now, 1e-9])
    return [
        {
            "label": label,
            "was": p,
            "now": q,
            "was_height": round(100 * p / highest, 2),
            "now_height": round(100 * q / highest, 2),
        }
        for label, p, q in zip(shown["labels"], was, now, strict=True)
    ]
