"""The status page: the head figures without a script, names as text, and the whole in a browser."""

import asyncio
import re
import time
from collections.abc import Callable
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agent.admin.page import overall, render_page
from tests.admin.house import House
from tests.admin.stand_in import StandIn
from tests.admin.stand_in_detection import DETECTION, QUIET
from tests.admin.stand_in_features import HOSTILE
from tests.admin.stand_in_service import SERVICE, SHADOW

BROWSER_S_MAX = 120.0
INLINE = re.compile(r"<[^>]*\s(style|on[a-z]+)\s*=", re.IGNORECASE)


class Texts(HTMLParser):
    """What a page says, and which elements it has."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_data(self, data: str) -> None:
        self.words += " " + data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def read(html: str) -> Texts:
    texts = Texts()
    texts.feed(html)
    return texts


def says(texts: Texts, words: str) -> bool:
    """Whether they are there in this order, whichever spaces are between."""
    return " ".join(words.split()) in " ".join(texts.words.split())


def test_the_head_figures_need_no_script() -> None:
    words = " ".join(read(render_page(StandIn().status())).words.split())
    for shown in ("income", "v7", "3 d 2 h", "81.2 %", "1 284 551", "32 561 rows", "■ drift"):
        assert shown.replace(" ", "\u202f") in words.replace(" ", "\u202f"), shown


def test_a_status_with_nothing_in_it_is_a_page() -> None:
    assert "being learnt from traffic" in render_page({})
    assert "being learnt from traffic" in render_page(
        {"stable": None, "states": None, "quality": None, "reference": None, "processes": None}
    )


def test_a_rollout_says_what_decided_without_a_script() -> None:
    page = render_page({"rollout": {"state": "live", "reason": "confirmed", "because": "errors"}})
    assert "errors" in page
    assert "confirmed" not in page


def test_names_are_text_whatever_they_are() -> None:
    status = StandIn().status()
    status |= {"model": HOSTILE, "stable": {"version": HOSTILE, "digest": HOSTILE}}
    status |= {"rollout": {"candidate": HOSTILE, "state": HOSTILE}, "role": f'" {HOSTILE}'}
    status |= {"processes": {HOSTILE: {}}, "quality": {HOSTILE: {"value": 1.0}}}
    texts = read(render_page(status))
    assert HOSTILE in texts.words
    assert [attributes for tag, attributes in texts.tags if tag == "script"] == [
        {"type": "module", "src": "/static/page.js"}
    ]


def test_what_stands_needs_no_script() -> None:
    texts = read(render_page(_hostile(deepcopy(DETECTION))))
    assert says(texts, f"■ drift hours_per_week{HOSTILE}")
    assert says(texts, f"age{HOSTILE} in north{HOSTILE} age fell in one region{HOSTILE}")
    assert says(texts, "roc_auc estimated 87.1 % 86.5 % – 87.7 % 10 000")
    assert not any(tag == "script" and "src" not in a for tag, a in texts.tags)
    [standing] = [a for _, a in texts.tags if a.get("id") == "standing"]
    assert "hidden" not in standing
    [standing] = [a for _, a in read(render_page(QUIET)).tags if a.get("id") == "standing"]
    assert "hidden" in standing


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = render_page(StandIn().status())
    assert "<style" not in html
    assert INLINE.search(html) is None
    for tag, attributes in read(html).tags:
        for name in ("src", "href"):
            address = attributes.get(name) or "/"
            assert address.startswith(("/", "#")), (tag, address)
    for script in (Path(__file__).parents[2] / "agent" / "admin" / "static").glob("*.js"):
        text = script.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, script.name
        for word in ("localStorage", "sessionStorage", "document.cookie"):
            assert word not in text, script.name


def test_the_worst_state_stands_for_all() -> None:
    assert overall({"ok": 5, "drift": 1, "warning": 2})["name"] == "drift"
    assert overall({"ok": 5, "warning": 2})["name"] == "warning"
    assert overall({"ok": 5, "insufficient_data": 2})["name"] == "ok"
    assert overall({})["name"] == "insufficient_data"


async def browse(browser: Path, profile: Path, url: str, *more: str) -> tuple[str, str]:
    """(document after the script has run, what the console said)."""
    process = await asyncio.create_subprocess_exec(
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=5000",
        *more,
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BROWSER_S_MAX):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    complaints = [line for line in err.decode().splitlines() if "CONSOLE" in line]
    return out.decode(), "\n".join(complaints)


@pytest.mark.real
async def test_a_browser_draws_the_page_and_has_no_complaint(
    house: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    house.view.now = time.time()
    page, complaints = await browse(
        program("chromium"), tmp_path / "profile", f"http://127.0.0.1:{house.port}/", "--dump-dom"
    )
    assert complaints == ""
    assert "live ·" in page
    texts = read(page)
    scripts = [attributes for tag, attributes in texts.tags if tag == "script"]
    assert scripts == [{"type": "module", "src": "/static/page.js"}]
    assert HOSTILE in texts.words
    cards = [a for tag, a in texts.tags if tag == "article"]
    assert [card["class"] for card in cards[:3]] == [
        "feature is-drift",
        "feature is-drift",
        "feature is-warning",
    ]
    assert sum(a.get("class") == "chart" for tag, a in texts.tags if tag == "figure") == 6
    for shown in ("hours_per_week", "canary", "25 % of traffic", "inconclusive", "RETRAIN"):
        assert says(texts, shown), shown
    assert says(texts, "10,000 requests >= 200")  # why, not the last step's reason
    assert says(texts, "120 · missing, outside")  # where the axis ends, and what is beyond it
    assert ("ledger", (7, 500)) in house.view.calls  # only what is new, from the second turn on


DETECTED = (
    *("standing", "together", "multivariate", "data", "data-quality", "groups", "fairness"),
    *("stream", "segments", "odd", "outliers"),
)
ONLY_WITH_DATA = (
    *DETECTED,
    *(
        "concept",
        "troubles",
        "answers",
        "service",
        "objectives",
        "latency",
        "language",
        "generations",
    ),
    *("generations", "server", "server-figures", "sources", "budgets"),
)


@pytest.mark.real
async def test_a_browser_shows_nothing_of_what_there_is_nothing_of(
    house: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    house.view.now = time.time()
    house.view.service = {"absent": {}, "slo": [], "latency": [], "generations": [], "sources": []}
    page, complaints = await browse(
        program("chromium"), tmp_path / "profile", f"http://127.0.0.1:{house.port}/", "--dump-dom"
    )
    assert complaints == ""
    assert "live ·" in page
    shown = {a.get("id") for _, a in read(page).tags if "hidden" not in a}
    assert "processes" in shown
    assert shown.isdisjoint(ONLY_WITH_DATA)


@pytest.mark.real
async def test_a_browser_shows_the_service_and_what_needs_attention(
    house: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    view = house.view
    view.now, view.rollout = time.time(), SHADOW
    view.service = deepcopy(SERVICE) | deepcopy(DETECTION)
    view.service["sources"][1]["reason"] += HOSTILE
    page, complaints = await browse(
        program("chromium"), tmp_path / "profile", f"http://127.0.0.1:{house.port}/", "--dump-dom"
    )
    assert complaints == ""
    texts = read(page)
    shown = {a.get("id") for _, a in texts.tags if "hidden" not in a}
    assert shown.issuperset(ONLY_WITH_DATA)
    assert [attributes for tag, attributes in texts.tags if tag == "script"] == [
        {"type": "module", "src": "/static/page.js"}
    ]
    assert HOSTILE in texts.words
    for said in SAID_OF_SERVICE:
        assert says(texts, said), said
    assert texts.words.index("1.25") > texts.words.index("Latency by version")  # p99 of v7
    assert page.index("v7</th>") < page.index("v8</th>")  # the stable version first


SAID_OF_SERVICE = (
    # What needs attention.
    "Source tap (eth0 port 8000) refused: needs CAP_NET_RAW",
    "Objective answers: its budget burns fast.",
    "killed for memory 2 times",
    "The memory budget cannot be held",
    # Objectives and latency.
    *("burns fast", "41 %", "spent", "none", "99.9 %", "4.2 ms", "1.25 s"),
    # Language models.
    *("73 500", "2.34 million", "38 ms · 410 ms", "17 ms · 25 ms"),
    *("stop 90 %, tool calls 10 %", "the server 95 %, pieces of a cut copy 5 %"),
    # The model server.
    *("0.000217 EUR for 1,000 predictions, 371 EUR a month", "3.5 GiB of 4 GiB (87.5 %)"),
    *("0.5 of 2 cores", "1 min 15 s by its CPU limit", "87 % busy, 12 GiB"),
    *("12 GiB received, 3 GiB sent", "2 kWh, measured by the processor"),
    # Sources and budgets.
    *("99.8 %", "eth0 port 8000", "25 %, lowered for the CPU budget", "0.093 of 0.1 cores"),
    *("128 MiB of 256 MiB", "not held", "220 of 500 a second", "lowered to hold"),
    # A shadow.
    *("copies answered 123 of 500", "50 % of requests are copied", "slot B is ready"),
    "Of 120 pairs of answers 3 differ (2.5 %); 2 without the other.",
)


@pytest.mark.real
async def test_a_browser_shows_what_detectors_know(
    house: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    house.view.now, house.view.service = time.time(), _hostile(deepcopy(DETECTION))
    page, complaints = await browse(
        program("chromium"), tmp_path / "profile", f"http://127.0.0.1:{house.port}/", "--dump-dom"
    )
    assert complaints == ""
    texts = read(page)
    shown = {a.get("id") for _, a in texts.tags if "hidden" not in a}
    assert shown.issuperset(DETECTED)
    assert [attributes for tag, attributes in texts.tags if tag == "script"] == [
        {"type": "module", "src": "/static/page.js"}
    ]
    assert not any(name.startswith("on") for _, a in texts.tags for name in a)
    for said in SAID_OF_DETECTION:
        assert says(texts, said), said


def _hostile(value: Any) -> Any:
    """Every name that comes from rows tries to be more than text."""
    if isinstance(value, dict):
        return {
            f"{key}{HOSTILE}" if key in GROUPS else key: f"{item}{HOSTILE}"
            if key in FROM_ROWS and item
            else item
            if key == "beyond"
            else _hostile(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [f"{item}{HOSTILE}" if isinstance(item, str) else _hostile(item) for item in value]
    return value


GROUPS = ("sex", "female", "male")
FROM_ROWS = ("name", "subject", "segment", "explain", "feature", "column", "what")

SAID_OF_DETECTION = (
    # What stands, with its words where they are known.
    "rows turn out positive less often than their scores meant",
    f"workclass{HOSTILE}",
    f"age{HOSTILE} in north{HOSTILE}",
    # Quality: labels beside estimates, and what the intervals are.
    "Labels contradict the estimates",
    "Metric From labels, 5 000 rows 95 % Estimated, 10 000 rows 95 %",
    "accuracy 81.2 % 80.1 % – 82.3 % 82.9 % 82.1 % – 83.7 %",
    "calibration error 0.083 – – –",
    "roc auc – – 87.1 % 86.5 % – 87.7 %",
    "betting ones hold at every look at once; asymptotic ones do so in the limit of many rows; "
    "sampling ones say where labels will put the figure",
    "accuracy, 80.1 % – 82.3 %, estimated 82.9 %",
    "error rate ● ok calibration ■ drift adwin ▲ warning labels ● ok",
    # How columns go together, and what explains it.
    f"education_num{HOSTILE} 52 %, age{HOSTILE} 41 % ■ drift 14.2",
    f"as hours_per_week{HOSTILE} moved",
    "17 are watched, evidence is believed from 6.3 on",
    # The data itself.
    f"Missing or unexpected campaign{HOSTILE}",
    f"No longer varies capital_loss{HOSTILE}",
    f"workclass{HOSTILE}: gig{HOSTILE} 14 %, platform{HOSTILE} 0.3 %",
    # Groups, parts of the stream, odd rows.
    "disparate impact 0.61 0.57 – 0.65 at least 0.8 ▲ beyond it",
    f"sex{HOSTILE} Gap Value",
    f"female{HOSTILE} 30 % 61 % 8 % 3 300",
    f"north{HOSTILE} 640 112 2 1 hours_per_week{HOSTILE}, workclass{HOSTILE}, age{HOSTILE}",
    "2 smaller ones are not watched",
    "5 138 of 1 284 551 rows (0.4 %)",
    f"1 281 007 capital_gain{HOSTILE} high{HOSTILE}, native_country{HOSTILE}",
    # When labels come.
    "with a label 83 % believed after 1 d 0 h waiting 1 204 their delay ▲ warning",
)


@pytest.mark.real
async def test_a_browser_shows_nothing_of_detectors_on_a_quiet_day(
    house: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    house.view.now, house.view.service = time.time(), deepcopy(QUIET)
    page, complaints = await browse(
        program("chromium"), tmp_path / "profile", f"http://127.0.0.1:{house.port}/", "--dump-dom"
    )
    assert complaints == ""
    texts = read(page)
    shown = {a.get("id") for _, a in texts.tags if "hidden" not in a}
    assert shown.isdisjoint(DETECTED)
    assert "concept" in shown
    assert says(texts, "error rate ● ok calibration ● ok labels ● ok")
    assert not says(texts, "contradict")


@pytest.mark.real
async def test_a_browser_before_a_locked_door_is_asked_for_a_token(
    fortress: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    page, complaints = await browse(
        program("chromium"),
        tmp_path / "profile",
        f"http://127.0.0.1:{fortress.port}/",
        "--dump-dom",
    )
    assert "This agent asks for a token" in page
    [locked] = [a for _, a in read(page).tags if a.get("id") == "locked"]
    assert "hidden" not in locked
    assert "income" not in page
    assert "Content Security Policy" not in complaints


@pytest.mark.real
async def test_the_page_is_drawn_at_the_width_of_a_phone(
    house: House, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    picture = tmp_path / "phone.png"
    _, complaints = await browse(
        program("chromium"),
        tmp_path / "profile",
        f"http://127.0.0.1:{house.port}/",
        "--window-size=500,900",
        f"--screenshot={picture}",
    )
    assert complaints == ""
    assert picture.stat().st_size > 20_000
