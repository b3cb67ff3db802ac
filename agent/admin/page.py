"""The status page's first sight: everything that needs no script, from the status alone.

Names of features, versions and reasons come from requests and from people: the template escapes
all of them, and nothing here marks any text as safe.
"""

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, PackageLoader

# State to the word and the sign beside its colour: nobody should need the colour.
STATES: Final = {
    "ok": ("ok", "●"),
    "warning": ("warning", "▲"),
    "drift": ("drift", "■"),
    "insufficient_data": ("too few rows", "○"),
}
UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
RATIO_METRICS: Final = frozenset(
    {"accuracy", "f1", "precision", "recall", "specificity", "roc_auc", "pr_auc"}
)
STANDING_SHOWN: Final = 8

_environment = Environment(
    loader=PackageLoader("agent.admin", "templates"),
    autoescape=True,
    undefined=ChainableUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(status: Mapping[str, Any]) -> str:
    """The page for a status as `View.status` gives it; whatever is missing shows as a dash."""
    return _environment.get_template("page.html").render(
        model=text(status.get("model")),
        stable=status.get("stable") or {},
        role=text(status.get("role")),
        uptime=duration(status.get("uptime_s")),
        rows=whole(status.get("rows_total")),
        sampling=share((status.get("sampling") or {}).get("rate")),
        dropped=whole(sum((status.get("drops") or {}).values())),
        reference=reference_words(status.get("reference")),
        states=[
            {
                "name": name,
                "word": word,
                "sign": sign,
                "count": (status.get("states") or {}).get(name, 0),
            }
            for name, (word, sign) in STATES.items()
        ],
        overall=overall(status.get("states") or {}),
        standing=[standing_words(one) for one in (status.get("standing") or [])[:STANDING_SHOWN]],
        quality=[
            quality_words(name, estimate)
            for basis in ("quality", "estimated")
            for name, estimate in (status.get(basis) or {}).items()
        ],
        rollout=status.get("rollout"),
        run=status.get("run"),
        processes=[process_row(name, p) for name, p in (status.get("processes") or {}).items()],
    )


def overall(states: Mapping[str, int]) -> dict[str, str]:
    """The worst state that any subject is in."""
    for name in ("drift", "warning", "ok"):
        if states.get(name):
            return {"name": name, "word": STATES[name][0], "sign": STATES[name][1]}
    word, sign = STATES["insufficient_data"]
    return {"name": "insufficient_data", "word": word, "sign": sign}


def reference_words(reference: Mapping[str, Any] | None) -> str:
    """What is compared against, in a few words."""
    if not reference:
        return "being learnt from traffic"
    words = f"{whole(reference.get('rows'))} rows"
    if reference.get("provisional"):
        return f"{words}, provisional"
    if reference.get("learnt") and not reference.get("accepted"):
        return f"{words}, learnt, not yet accepted"
    return words


def quality_words(name: str, estimate: Mapping[str, Any]) -> dict[str, str]:
    """One metric with its interval."""
    shown = percent if name in RATIO_METRICS else figure
    lower, upper = estimate.get("lower"), estimate.get("upper")
    return {
        "name": name,
        "value": shown(estimate.get("value")),
        "interval": "" if lower is None or upper is None else f"{shown(lower)} – {shown(upper)}",
        "rows": whole(estimate.get("rows")),
        "basis": text(estimate.get("basis")),
    }


def standing_words(one: Mapping[str, Any]) -> dict[str, str]:
    """A subject that stands, and what was said of it."""
    state = one.get("state")
    name = state if state in STATES else "insufficient_data"
    word, sign = STATES[name]
    subject = text(one.get("subject"))
    return {
        "state": name,
        "word": f"{sign} {word}",
        "subject": f"{subject} in {one['segment']}" if one.get("segment") else subject,
        "kind": str(one.get("kind", "")).replace("_", " "),
        "explain": str(one.get("explain") or ""),
    }


def process_row(name: str, figures: Mapping[str, float]) -> dict[str, str]:
    """One of our own processes; what it has no figure for is away or cannot be read."""
    memory, cpu = figures.get("memory_bytes"), figures.get("cpu_s")
    return {
        "name": name,
        "cpu": "–" if cpu is None else f"{cpu:.1f} s",
        "memory": "–" if memory is None else f"{memory / 2**20:.0f} MiB",
        "restarts": whole(figures.get("restarts", 0)),
    }


def text(value: Any) -> str:
    """The value, or a dash."""
    return "–" if value is None or value == "" else str(value)


def whole(value: float | None) -> str:
    """A count with thin spaces between its thousands.

    >>> whole(1234567)
    '1\\u202f234\\u202f567'
    """
    return "–" if value is None else f"{round(value):,}".replace(",", "\u202f")


def figure(value: float | None) -> str:
    """Three digits that count."""
    return "–" if value is None or value != value else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A share with one decimal."""
    return "–" if value is None or value != value else f"{100 * value:.1f}\u202f%"


def share(value: float | None) -> str:
    """A share with as few digits as it needs.

    >>> share(1.0), share(0.025)
    ('100\\u202f%', '2.5\\u202f%')
    """
    return "–" if value is None else f"{100 * value:.3g}\u202f%"


def duration(seconds: float | None) -> str:
    """The two biggest units.

    >>> duration(93_784)
    '1 d 2 h'
    """
    if seconds is None:
        return "–"
    left = int(seconds)
    parts: list[str] = []
    for size, unit in UNITS:
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
