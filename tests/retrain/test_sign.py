"""Signatures are those of the Standard Webhooks specification, and nothing else passes."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.webhooks.sign import (
    SecretError,
    SignatureError,
    derive_secret,
    generate_secret,
    read_secret,
    read_secrets,
    sign,
    verify,
    write_secret,
)

# The test vector of the specification's own reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330.0
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

KEY = read_secret(SECRET)
HEADERS = {
    "webhook-id": ID,
    "webhook-timestamp": "1614265330",
    "webhook-signature": SIGNATURE,
}


def test_the_published_vector_is_signed_alike() -> None:
    assert sign([KEY], webhook_id=ID, at=AT, body=BODY) == HEADERS


def test_the_published_vector_verifies() -> None:
    assert verify([KEY], HEADERS, BODY, now=AT) == ID


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200), st.integers(0, 10**11))
def test_an_independent_hmac_agrees(key: bytes, body: bytes, at: int) -> None:
    theirs = hmac.new(key, f"msg_1.{at}.".encode() + body, hashlib.sha256).digest()
    mine = sign([key], webhook_id="msg_1", at=float(at), body=body)
    assert mine["webhook-signature"] == "v1," + base64.b64encode(theirs).decode()
    assert verify([key], mine, body, now=float(at)) == "msg_1"


@pytest.mark.parametrize(
    "body", [b'{"test":2432232314}', BODY + b" ", b"", b'{"test": 2432232315}']
)
def test_an_altered_body_is_refused_even_if_it_means_the_same(body: bytes) -> None:
    with pytest.raises(SignatureError):
        verify([KEY], HEADERS, body, now=AT)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-id": ID + ".1614265330"},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "+1614265330"},
        {"webhook-timestamp": " 1614265330"},
        {"webhook-timestamp": "1614265330.0"},
        {"webhook-timestamp": "١٦١٤٢٦٥٣٣٠"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": SIGNATURE.removeprefix("v1,")},
        {"webhook-signature": SIGNATURE.replace("v1", "v1a")},
        {"webhook-signature": "v1,\udce9"},
    ],
)
def test_altered_headers_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(SignatureError, match=r"^not authentic$"):
        verify([KEY], HEADERS | change, BODY, now=AT)


@pytest.mark.parametrize("missing", list(HEADERS))
def test_every_header_is_needed(missing: str) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    with pytest.raises(SignatureError):
        verify([KEY], headers, BODY, now=AT)


@pytest.mark.parametrize("now", [AT - 300, AT + 300])
def test_five_minutes_are_recent(now: float) -> None:
    assert verify([KEY], HEADERS, BODY, now=now) == ID


@pytest.mark.parametrize("now", [AT - 301, AT + 301])
def test_more_is_stale_or_from_the_future(now: float) -> None:
    with pytest.raises(SignatureError):
        verify([KEY], HEADERS, BODY, now=now)


def test_while_keys_are_rotated_both_pass() -> None:
    new = read_secret(generate_secret())
    headers = sign([new, KEY], webhook_id=ID, at=AT, body=BODY)
    assert headers["webhook-signature"].split(" ")[1] == SIGNATURE
    assert verify([KEY], headers, BODY, now=AT) == verify([new], headers, BODY, now=AT) == ID
    assert verify([new, KEY], HEADERS, BODY, now=AT) == ID


def test_an_id_with_a_dot_is_never_signed() -> None:
    with pytest.raises(ValueError, match="webhook id"):
        sign([KEY], webhook_id="a.b", at=AT, body=BODY)


@pytest.mark.parametrize(
    "text",
    ["", "secret", SECRET.removeprefix("whsec_"), "whsec_", "whsec_!!!!", "whsec_c2hvcnQ="],
)
def test_what_is_no_secret_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(SecretError) as caught:
        read_secret(text)
    assert "c2hvcnQ" not in str(caught.value)
    assert "!!!!" not in str(caught.value)


def test_secrets_are_read_line_by_line() -> None:
    assert read_secrets(f"{SECRET}\n\n{write_secret(bytes(32))}\n") == (KEY, bytes(32))
    with pytest.raises(SecretError, match="no secret"):
        read_secrets("\n")


def test_each_run_has_a_secret_of_its_own() -> None:
    # openssl dgst -sha256 -mac HMAC -macopt hexkey:<key>, of `remora-callback:run_1`
    expected = hmac.new(KEY, b"remora-callback:run_1", "sha256").digest()
    assert read_secret(derive_secret(KEY, "run_1")) == expected
    assert derive_secret(KEY, "run_1") != derive_secret(KEY, "run_2")
    assert derive_secret(KEY, "run_1") != derive_secret(bytes(24), "run_1")
