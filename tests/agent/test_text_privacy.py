"""Where the words of a chat may be found in everything that an agent writes and shows: nowhere,
unless the operator asked for them, and then in the captured rows alone."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.capture import CaptureWriter, read_segment, segments
from agent.config import load_config
from agent.decoders.detection import Decoding
from agent.generation_families import generation_families
from agent.intake import Intake
from agent.labels import LabelStore
from agent.monitor import Tick
from agent.sampling import Sampler, Strategies
from tests.decoders.conftest import post as _post
from tests.decoders.language import EVENTS, asked, chunk, events
from tests.exporters.full_scrape import scrape_input

post = _post  # a fixture of the decoders' tests
WORDS = "zebra quilt"
REPLY = "velvet anchor"


class House:
    """An intake with captures, over a directory."""

    def __init__(self, directory: Path, **tree: Any) -> None:
        self.directory = directory
        path = directory / "remora.yaml"
        sources = [{"kind": "proxy", "upstream": "http://127.0.0.1:9"}]
        path.write_text(json.dumps({"sources": sources, **tree}))
        config = load_config(path, environ={})
        self.labels = LabelStore(
            directory / "labels.db", ttl_s=60.0, pending_s=60.0, rows_max=1_000
        )
        self.capture = CaptureWriter(
            directory / "captures",
            bytes_max=2**20,
            retention_s=60.0,
            redact=config.capture.redact,
        )
        self.intake = Intake(
            config,
            stable="v1",
            reference=None,
            labels=self.labels,
            sampler=Sampler(Strategies.of(config.sampling), salt=b"salt"),
            on_tick=self._on_tick,
            on_labelled=lambda *_: None,
        )

    def _on_tick(self, tick: Tick) -> None:
        self.capture.write(tick.batch)

    def chat(self, make: Callable[..., Any], **other: Any) -> None:
        body = events(
            chunk({"content": f"{REPLY}, "}),
            chunk({"content": "indeed."}),
            chunk({}, finish="stop"),
        )
        question = asked(messages=[{"role": "user", "content": f"Tell me of {WORDS}."}])
        fields = {"response_headers": EVENTS, "first_body_s": 0.01, **other}
        self.intake.take(make("/v1/chat/completions", question, body, **fields))

    def rows(self) -> list[dict[str, Any]]:
        self.intake.flush()
        self.capture.close()
        found = segments(self.directory / "captures")
        return [row for path in found for row in read_segment(path)]

    def everything(self) -> bytes:
        """All that is on disk or would be shown."""
        self.rows()
        self.labels.close()
        shown = [
            repr(self.intake.last_errors),
            repr(self.intake.monitor.state()),
            repr(self.intake.monitor.schema_learner.schema),
            repr(generation_families(scrape_input(generations=self.intake.generations.versions))),
        ]
        files = [path.read_bytes() for path in self.directory.rglob("*") if path.is_file()]
        return b"".join(files) + "".join(shown).encode()


def test_descriptors_are_captured_and_not_a_word(tmp_path: Path, post: Any) -> None:
    house = House(tmp_path, capture={"enabled": True})
    house.chat(post)
    house.chat(post, outcome="client_disconnect", response_truncated=True)
    [row, _] = house.rows()
    assert row["prompt.length"] == len(f"Tell me of {WORDS}.")
    assert row["reply.length"] == len(f"{REPLY}, indeed.")
    assert row["prediction"] == "stop"
    everything = house.everything()
    assert b"zebra" not in everything
    assert b"velvet" not in everything


def test_texts_are_captured_when_asked_for_and_only_so_far(tmp_path: Path, post: Any) -> None:
    capture = {"enabled": True, "text": True, "text_characters_max": 14}
    redact = [{"pattern": "zebra"}]
    house = House(tmp_path, capture=capture, protocol={"redact": redact})
    house.chat(post)
    question = {"instances": [[1.0]]}
    house.intake.take(post("/v1/models/m:predict", question, {"predictions": [1.0]}))
    chat, other = sorted(house.rows(), key=lambda row: row["prompt.text"] is None)
    assert chat["prompt.text"] == "Tell me of [re"
    assert chat["reply.text"] == "velvet anchor,"
    assert other["prompt.text"] is None
    assert WORDS.encode() not in house.everything()


def test_a_text_may_be_left_out_by_the_name_of_its_column(tmp_path: Path, post: Any) -> None:
    capture = {"enabled": True, "text": True, "redact": ["reply.text"]}
    house = House(tmp_path, capture=capture)
    house.chat(post)
    [row] = house.rows()
    assert row["prompt.text"] == f"Tell me of {WORDS}."
    assert "reply.text" not in row


def test_a_fault_of_ours_is_logged_without_the_words_it_stumbled_over(
    tmp_path: Path,
    post: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def stumble(self: Decoding, exchange: Any) -> None:
        raise KeyError(f"what is {WORDS}?")

    monkeypatch.setattr(Decoding, "decode", stumble)
    caplog.set_level(logging.DEBUG)
    house = House(tmp_path)
    house.chat(post)
    assert house.intake.dropped["intake_failed"] == 1
    assert list(house.intake.last_errors) == ["KeyError"]
    captured = capsys.readouterr()
    shown = captured.out + captured.err + caplog.text
    assert "KeyError at stumble" in shown
    assert "zebra" not in shown
    house.labels.close()


def test_tokens_and_times_count_by_what_an_answer_stands_for(tmp_path: Path, post: Any) -> None:
    house = House(tmp_path, sampling={"rate": 0.25})
    house.chat(post, weight=4.0, draw=0.1)
    house.chat(post, weight=4.0, draw=0.1, outcome="client_disconnect", response_truncated=True)
    sums = house.intake.generations.versions["v1"]
    assert sums.output_tokens == 16.0
    assert sums.finish_reasons["stop"] == 8.0
    assert sum(sums.first_token.counts) == 8.0
    house.labels.close()


def test_an_answer_that_the_sampler_weighs_counts_by_that_weight(tmp_path: Path, post: Any) -> None:
    house = House(tmp_path, sampling={"rate": 0.25})
    house.chat(post, weight=1.0, draw=0.1)  # from a source that keeps all
    house.chat(post, weight=1.0, draw=0.3)
    assert house.intake.generations.versions["v1"].finish_reasons["stop"] == 4.0
    house.labels.close()


def test_counters_begin_at_zero_again_after_a_restart(tmp_path: Path, post: Any) -> None:
    house = House(tmp_path)
    house.chat(post)
    state = house.intake.monitor.state()
    house.labels.close()
    again = House(tmp_path)
    again.intake.monitor.restore(state)
    assert again.intake.generations.versions == {}
    again.labels.close()
