"""KServe's logger, byte for byte, and everybody else who sends CloudEvents."""

import asyncio
import base64
import gzip
import json
from typing import Any

import numpy as np
import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecoderSettings
from agent.decoders.detection import Decoding
from agent.sources.sampler import Sampler
from tests.sources import kserve_wire as kserve
from tests.sources.house import Client, pushing

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"


async def sent(client: Client, data: bytes) -> int:
    """Bytes on a connection of their own; the status that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(data)
        line = await asyncio.wait_for(reader.readline(), 30.0)
        return int(line.split(b" ")[1])
    finally:
        writer.close()


def decoded(client: Client) -> list[list[float]]:
    decoding = Decoding(decoders(AUTO, DecoderSettings()))
    found: list[list[float]] = []
    for exchange in client.taking.exchanges:
        found += np.asarray(decoding.decode(exchange).rows).tolist()
    return found


def structured(type: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "s-1", "type": type, "source": "x", "data": data, **more}


async def test_the_loggers_two_events_are_one_exchange_that_decodes() -> None:
    async with pushing() as client:
        assert await sent(client, kserve.asked()) == 200
        assert await sent(client, kserve.said()) == 200
        await client.taking.until(1)
        (exchange,) = client.taking.exchanges
        assert (exchange.id, exchange.id_from, exchange.minted) == (kserve.ID, "ce-id", False)
        assert exchange.path == "/v1/models/iris:predict"
        assert exchange.duration_s == pytest.approx(0.05)
        assert (exchange.slot, exchange.version, exchange.weight) == ("stable", "", 1.0)
        assert decoded(client) == [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5]]
        assert client.push.completeness == 1.0


async def test_the_response_may_come_first() -> None:
    async with pushing() as client:
        assert await sent(client, kserve.said()) == 200
        assert await sent(client, kserve.asked()) == 200
        await client.taking.until(1)
        assert client.taking.exchanges[0].request_body == kserve.ASKED


async def test_open_inference_is_known_by_its_body() -> None:
    async with pushing() as client:
        await sent(client, kserve.event(kserve.REQUEST, kserve.ASKED_V2))
        await sent(client, kserve.event(kserve.RESPONSE, kserve.SAID_V2))
        await client.taking.until(1)
        assert client.taking.exchanges[0].path == "/v2/models/iris/infer"
        assert decoded(client) == [[5.1, 3.5, 1.4, 0.2]]


async def test_what_is_sent_again_changes_nothing() -> None:
    async with pushing() as client:
        for data in (kserve.asked(), kserve.asked(), kserve.said(), kserve.said(), kserve.asked()):
            assert await sent(client, data) == 200
        await client.taking.until(1)
        assert len(client.taking.taken) == 1
        assert client.dropped["duplicate_event"] == 3


async def test_the_content_type_of_the_response_is_not_believed() -> None:
    async with pushing() as client:
        raw = "application/octet-stream"
        await sent(client, kserve.event(kserve.REQUEST, b"\0\1raw", content_type=raw))
        await sent(client, kserve.event(kserve.RESPONSE, kserve.SAID_V2, content_type=raw))
        await client.taking.until(1)
        exchange = client.taking.exchanges[0]
        assert exchange.request_headers["content-type"] == "application/octet-stream"
        assert exchange.response_headers["content-type"] == "application/json"


async def test_gzip_is_known_without_its_header() -> None:
    async with pushing() as client:
        await sent(client, kserve.event(kserve.REQUEST, gzip.compress(kserve.ASKED)))
        await sent(client, kserve.event(kserve.RESPONSE, gzip.compress(kserve.SAID)))
        await client.taking.until(1)
        assert client.taking.exchanges[0].response_body == kserve.SAID


async def test_headers_that_kserve_was_told_to_pass_on_name_the_request() -> None:
    passed = {"X-Request-Id": ["mine-7"], "Authorization": ["Bearer secret"]}
    async with pushing() as client:
        await sent(client, kserve.event(kserve.REQUEST, kserve.ASKED, metadata=passed))
        await sent(client, kserve.said())  # older agents say it on the request alone
        await client.taking.until(1)
        exchange = client.taking.exchanges[0]
        assert (exchange.id, exchange.id_from) == ("mine-7", "x-request-id")
        assert "authorization" not in exchange.request_headers


async def test_only_the_predictor_counts_unless_others_are_named() -> None:
    async with pushing() as client:
        assert await sent(client, kserve.asked(component="transformer")) == 200
        assert client.dropped["event_other_component"] == 1
    async with pushing(components=["transformer"]) as client:
        await sent(client, kserve.asked(component="transformer"))
        await sent(client, kserve.said(component="transformer"))
        await client.taking.until(1)


async def test_a_transformer_and_its_predictor_with_one_id_are_not_mixed() -> None:
    async with pushing(components=["transformer", "predictor"]) as client:
        for component in ("transformer", "predictor"):
            await sent(client, kserve.asked(component=component))
        for component in ("predictor", "transformer"):
            await sent(client, kserve.said(component=component))
        await client.taking.until(2)
        assert "duplicate_event" not in client.dropped


async def test_the_canary_is_the_candidate() -> None:
    async with pushing(canary_version="2") as client:
        await sent(client, kserve.asked(endpoint="canary"))
        await sent(client, kserve.said(endpoint="canary"))
        await client.taking.until(1)
        exchange = client.taking.exchanges[0]
        assert (exchange.slot, exchange.version) == ("candidate", "2")


async def test_seldons_events_meet_by_the_request_they_name() -> None:
    async with pushing() as client:
        for side, id, body in (
            ("request", "e-1", kserve.ASKED_V2),
            ("response", "e-2", kserve.SAID_V2),
        ):
            answer = await client.post(
                "/",
                body,
                ce_specversion="0.3",
                ce_id=id,
                ce_type=f"io.seldon.serving.inference.{side}",
                ce_source="x",
                ce_requestid="r-1",
                ce_modelid="iris",
            )
            assert answer.status_code == 200
        await client.taking.until(1)
        assert client.taking.exchanges[0].id == "r-1"


async def test_structured_and_batch_mode_say_the_same_as_binary() -> None:
    encoded = base64.b64encode(kserve.SAID).decode()
    events = [
        structured(kserve.REQUEST, json.loads(kserve.ASKED)),
        structured(kserve.RESPONSE, None, data_base64=encoded),
        structured(kserve.REQUEST, kserve.ASKED.decode(), id="s-2", datacontenttype="text/plain"),
        structured(kserve.RESPONSE, json.loads(kserve.SAID), id="s-2"),
    ]
    async with pushing() as client:
        for one in events[:2]:
            body = json.dumps(one).encode()
            answer = await client.post("/api/v1/events", body, content_type=STRUCTURED)
            assert answer.status_code == 200
        await client.taking.until(1)
        body = json.dumps([*events[2:], {"id": 1}]).encode()
        answer = await client.post("/", body, content_type=BATCH + "; charset=utf-8")
        assert answer.json() == {"events": 2, "rejected": 1}
        await client.taking.until(2)
        assert decoded(client) == [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5]] * 2


async def test_records_made_for_a_blob_store_are_taken_as_well() -> None:
    def record(type: str, body: bytes) -> dict[str, Any]:
        return {
            "url": {"Scheme": "s3", "Host": "bucket"},
            "bytes": base64.b64encode(body).decode(),
            "contentType": "application/json",
            "reqType": type,
            "id": "blob-1",
            "inferenceService": "iris",
            "namespace": "n",
            "component": "predictor",
            "endpoint": "",
        }

    records = [record(kserve.REQUEST, kserve.ASKED), record(kserve.RESPONSE, kserve.SAID)]
    async with pushing() as client:
        answer = await client.post("/", json.dumps(records).encode())
        assert answer.status_code == 200
        await client.taking.until(1)
        assert client.taking.exchanges[0].id == "blob-1"


async def test_events_about_something_else_are_answered_and_counted() -> None:
    async with pushing() as client:
        assert await sent(client, kserve.event("dev.knative.ping", b"{}")) == 200
        assert client.dropped["event_other_type"] == 1


async def test_a_bomb_is_answered_413_and_never_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    async with pushing(body_bytes_max=1_000_000) as client:
        assert await sent(client, kserve.event(kserve.REQUEST, bomb)) == 413
        packed = structured(kserve.REQUEST, None, data_base64=base64.b64encode(bomb).decode())
        answer = await client.post("/", json.dumps(packed).encode(), content_type=STRUCTURED)
        assert answer.status_code == 413
        assert client.dropped["event_too_large"] == 2


async def test_what_is_sampled_out_is_no_drop_and_what_is_kept_knows_its_weight() -> None:
    sampler = Sampler(keeps=lambda id: id == "kept", weight=lambda: 10.0)
    async with pushing(sampler=sampler) as client:
        for id in ("kept", "other"):
            await sent(client, kserve.asked(id=id))
            await sent(client, kserve.said(id=id))
        await client.taking.until(1)
        (exchange,) = client.taking.exchanges
        assert (exchange.id, exchange.weight) == ("kept", 10.0)
        assert sum(client.dropped.values()) == 0
