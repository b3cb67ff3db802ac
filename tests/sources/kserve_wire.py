"""KServe's logger on the wire, byte for byte: what its Go agent writes for one exchange.

Made by hand from `pkg/logger` of KServe and the Go SDK of CloudEvents: the agent itself does not
run here.
"""

import json

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
ASKED = b'{"instances": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5]]}'
SAID = b'{"predictions":[0,1]}'
ASKED_V2 = (
    b'{"inputs":[{"name":"input-0","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}'
)
SAID_V2 = (
    b'{"model_name":"iris","outputs":[{"name":"output-0","shape":[1],'
    b'"datatype":"INT64","data":[0]}]}'
)
ID = "b0d9ad5c-5bd1-4f22-8e8d-0b4b8d0b9c60"


def event(
    type: str,
    body: bytes,
    *,
    id: str = ID,
    time: str = "2026-08-21T10:00:00.123456789Z",
    component: str = "predictor",
    endpoint: str = "default",
    content_type: str = "application/json",
    metadata: dict[str, list[str]] | None = None,
    path: str = "/",
) -> bytes:
    """One POST as the agent sends it: header names as Go writes them, a connection of its own."""
    heads = [
        f"POST {path} HTTP/1.1",
        "Host: remora:9312",
        "User-Agent: Go-http-client/1.1",
        f"Content-Length: {len(body)}",
        "Ce-Component: " + component,
        "Ce-Endpoint: " + endpoint,
        "Ce-Id: " + id,
        "Ce-Inferenceservicename: iris",
        "Ce-Metadata: " + json.dumps(metadata or {}, separators=(",", ":")),
        "Ce-Namespace: kserve-test",
        "Ce-Source: http://localhost:9081/",
        "Ce-Specversion: 1.0",
        "Ce-Time: " + time,
        "Ce-Type: " + type,
        "Content-Type: " + content_type,
        "Accept-Encoding: gzip",
    ]
    return "\r\n".join(heads).encode() + b"\r\n\r\n" + body


def asked(
    *, id: str = ID, component: str = "predictor", endpoint: str = "default", path: str = "/"
) -> bytes:
    return event(REQUEST, ASKED, id=id, component=component, endpoint=endpoint, path=path)


def said(*, id: str = ID, component: str = "predictor", endpoint: str = "default") -> bytes:
    """The answer, 50 ms later."""
    time = "2026-08-21T10:00:00.173456789Z"
    return event(RESPONSE, SAID, id=id, time=time, component=component, endpoint=endpoint)
