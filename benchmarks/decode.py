"""CPU per exchange of decoding: Remora against json with numpy, and against the servers' codecs.

Same bytes, same machine, same run. Each side is a process of its own; they take turns, and the
figure is process CPU time for one exchange (request and answer), the median over the rounds; ratios
are taken within each round, and their median counts. The peers, none of which looks for limits, ids
or which protocol it is:

    json+numpy     the least that a script does: json.loads on both bodies, np.array on the rows,
                   np.frombuffer on raw tensors
    MLServer 1.7.1 what that server itself does with such a request and answer (pydantic models,
                   its numpy codec), where `make servers` has installed it
    KServe 0.21.0  the same of its InferRequest and InferResponse, binary tensors included

    python benchmarks/decode.py [--rounds 7] [--seconds 0.15]

Each case has one peer that it is held to (`GOALS`), the others are for comparison:

    V1, three bodies   1.5 times json+numpy: that is how its servers written by hand read; the
                       checks and the search for the protocol may cost half as much again
    V2 in JSON         2.0 times KServe, the cheaper of two servers: it trusts types and shapes as
                       they were sent, Remora looks at every value
    V2 in binary       1.0 times KServe: a sidecar adds no more than the server's own reading;
                       json+numpy is a bound from below here, it looks at nothing

Exits 0 if every goal is met, 1 if one is not or its peer is not installed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / ".venv-servers"

GOALS = {
    "v1 1 KB, 12 x 12": ("json+numpy", 1.5),
    "v1 1 x 100": ("json+numpy", 1.5),
    "v1 named 12 x 12": ("json+numpy", 1.5),
    "v2 JSON 64 x 20": ("KServe", 2.0),
    "v2 binary 64 x 20": ("KServe", 1.0),
}

LOOP = """
import json, sys, time
print("ready", "|".join(CASES), flush=True)
for line in sys.stdin:
    name, _, seconds = line.rpartition(" ")
    do, count = CASES[name], 0
    started = time.process_time()
    while (spent := time.process_time() - started) < float(seconds):
        for _ in range(20):
            do()
        count += 20
    print(json.dumps({"cpu_us": spent / count * 1e6}), flush=True)
"""

OURS = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from functools import partial
from pathlib import Path
from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecoderSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange

CASES = {}
for name, case in json.loads(Path(sys.argv[2]).read_text()).items():
    headers = [{"inference-header-content-length": str(n)} if n else {} for n in case["json"]]
    asked, said = (bytes.fromhex(body) for body in case["bodies"])
    exchange = Exchange(
        id="a", minted=True, id_from="minted", source="proxy", version="1", slot="stable",
        method="POST", path=case["path"], query="", request_headers=headers[0],
        request_body=asked, request_truncated=False, status=200, response_headers=headers[1],
        response_body=said, response_truncated=False, started_at=0.0, first_byte_s=None,
        duration_s=0.1, outcome="ok", weight=1.0)
    decoding = Decoding(decoders(AUTO, DecoderSettings()))
    for _ in range(10):
        decoding.decode(exchange)  # its route settles
    CASES[name] = partial(decoding.decode, exchange)
"""

READ = """
import json, sys
from pathlib import Path
import numpy as np
RAW = {name: ([bytes.fromhex(body) for body in case["bodies"]], case["json"])
       for name, case in json.loads(Path(sys.argv[2]).read_text()).items()}
CASES = {}
"""

BY_HAND = (
    READ
    + """
def v1(asked, said):
    rows = json.loads(asked)["instances"]
    return np.array(rows, dtype=np.float64), json.loads(said)["predictions"]

def named(asked, said):
    rows = json.loads(asked)["instances"]
    return np.array([[row[k] for k in rows[0]] for row in rows]), json.loads(said)["predictions"]

def v2(asked, said):
    tensor = json.loads(asked)["inputs"][0]
    rows = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
    return rows, {t["name"]: t["data"] for t in json.loads(said)["outputs"]}

TYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}

def binary(body, length, member):
    message, at, found = json.loads(body[:length]), length, {}
    for t in message[member]:
        end = at + t["parameters"]["binary_data_size"]
        found[t["name"]] = np.frombuffer(body[at:end], TYPES[t["datatype"]]).reshape(t["shape"])
        at = end
    return found

def of(name, bodies, lengths):
    if lengths[0]:
        return lambda: (binary(bodies[0], lengths[0], "inputs")["x"].astype(np.float64),
                        {k: v.tolist() for k, v in
                         binary(bodies[1], lengths[1], "outputs").items()})
    do = v2 if name.startswith("v2") else named if "named" in name else v1
    return lambda: do(*bodies)

CASES = {name: of(name, *raw) for name, raw in RAW.items()}
"""
)

MLSERVER = (
    READ
    + """
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

def v2(asked, said):
    request = InferenceRequest.model_validate_json(asked)
    answer = InferenceResponse.model_validate_json(said)
    return (NumpyCodec.decode_input(request.inputs[0]),
            [NumpyCodec.decode_output(output) for output in answer.outputs])

CASES = {name: (lambda bodies=bodies: v2(*bodies)) for name, (bodies, lengths) in RAW.items()
         if name.startswith("v2") and not lengths[0]}
"""
)

KSERVE = (
    READ
    + """
from kserve import InferRequest, InferResponse

def v2(bodies, lengths):
    request = InferRequest.from_bytes(bodies[0], lengths[0] or len(bodies[0]), "m")
    answer = InferResponse.from_bytes(bodies[1], lengths[1] or len(bodies[1]))
    return request.inputs[0].as_numpy(), [output.as_numpy() for output in answer.outputs]

CASES = {name: (lambda raw=raw: v2(*raw)) for name, raw in RAW.items() if name.startswith("v2")}
"""
)


class Side:
    """One of them, in a process of its own, measured when asked to."""

    def __init__(self, name: str, python: Path, program: str, cases: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python, "-c", program + LOOP, str(ROOT), str(cases)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        word, _, names = self._line().partition(" ")
        if word != "ready":
            raise RuntimeError(f"{name} does not start")
        self.cases = names.strip().split("|")

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def _line(self) -> str:
        return self._pipe(self._process.stdout).readline()

    def measure(self, case: str, seconds: float) -> float:
        stdin = self._pipe(self._process.stdin)
        stdin.write(f"{case} {seconds}\n")
        stdin.flush()
        cpu_us: float = json.loads(self._line())["cpu_us"]
        return cpu_us

    def close(self) -> None:
        self._pipe(self._process.stdin).close()
        self._process.wait()


def exchanges() -> dict[str, dict[str, Any]]:
    """Case to its path, bodies as hex, and for raw tensors the length of the JSON before them."""
    rng = np.random.default_rng(7)
    cases: dict[str, dict[str, Any]] = {}

    def add(name: str, path: str, bodies: list[bytes], lengths: list[int]) -> None:
        cases[name] = {"path": path, "bodies": [b.hex() for b in bodies], "json": lengths}

    def v1(rows: Any, predictions: Any) -> list[bytes]:
        return [json.dumps({"instances": rows}).encode(),
                json.dumps({"predictions": predictions}).encode()]  # fmt: skip

    small = np.round(rng.normal(size=(12, 12)), 3).tolist()
    wide = np.round(rng.normal(size=(1, 100)), 3).tolist()
    people = [{f"feature_{i}": round(v, 3) for i, v in enumerate(row)} for row in small]
    add("v1 1 KB, 12 x 12", "/v1/models/m:predict", v1(small, [1] * 12), [0, 0])
    add("v1 1 x 100", "/v1/models/m:predict", v1(wide, [0.5]), [0, 0])
    add("v1 named 12 x 12", "/v1/models/m:predict", v1(people, [1] * 12), [0, 0])
    rows = rng.normal(size=(64, 20)).astype("<f4")
    answers: dict[str, Any] = {
        "label": rng.integers(0, 2, 64),
        "proba": rng.random((64, 2), dtype="f4"),
    }
    types = {"f": "FP32", "i": "INT64"}

    def tensors(arrays: Mapping[str, Any], *, is_raw: bool) -> list[dict[str, Any]]:
        return [
            {"name": name, "shape": list(array.shape), "datatype": types[array.dtype.kind]}
            | ({"parameters": {"binary_data_size": array.nbytes}} if is_raw
               else {"data": array.ravel().tolist()})
            for name, array in arrays.items()
        ]  # fmt: skip

    for is_raw, name in ((False, "v2 JSON 64 x 20"), (True, "v2 binary 64 x 20")):
        bodies, lengths = [], []
        for member, arrays in (("inputs", {"x": rows}), ("outputs", answers)):
            message: dict[str, Any] = {member: tensors(arrays, is_raw=is_raw)}
            if member == "outputs":
                message["model_name"] = "m"
            head = json.dumps(message).encode()
            raw = b"".join(array.tobytes() for array in arrays.values()) if is_raw else b""
            bodies.append(head + raw)
            lengths.append(len(head) if is_raw else 0)
        add(name, "/v2/models/m/infer", bodies, lengths)
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cases.json"
        cases = exchanges()
        file.write_text(json.dumps(cases))
        own = Path(sys.executable)
        sides = [Side("Remora", own, OURS, file), Side("json+numpy", own, BY_HAND, file)]
        for name, program in (("MLServer", MLSERVER), ("KServe", KSERVE)):
            python = SERVERS / name.lower() / "bin" / "python"
            if python.exists():
                sides.append(Side(name, python, program, file))
            else:
                print(f"{name} is left out: `make servers` installs it")
        try:
            missed = compared(sides, list(cases), asked.rounds, asked.seconds)
        finally:
            for side in sides:
                side.close()
    print(f"goals missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


def compared(sides: list[Side], cases: list[str], rounds: int, seconds: float) -> list[str]:
    """Prints a line for each case; the cases whose goal was missed or could not be judged."""
    print(f"{'microseconds of CPU':20}" + "".join(f"{side.name:>16}" for side in sides))
    missed: list[str] = []
    for case in cases:
        here = [side for side in sides if case in side.cases]
        times: dict[str, list[float]] = {side.name: [] for side in here}
        for turn in range(rounds):
            for side in here if turn % 2 else reversed(here):
                times[side.name].append(side.measure(case, seconds))
        ours = times[sides[0].name]
        ratios = {
            name: statistics.median(a / b for a, b in zip(ours, values, strict=True))
            for name, values in times.items()
        }
        cells = [
            f"{statistics.median(times[side.name]):8.1f} ({ratios[side.name]:4.2f})"
            if side.name in times
            else "-"
            for side in sides
        ]
        peer, goal = GOALS[case]
        is_met = peer in ratios and ratios[peer] <= goal
        print(
            f"{case:20}" + "".join(f"{cell:>16}" for cell in cells),
            f"  {'met' if is_met else 'missed'}: at most {goal:g} times {peer}",
        )
        missed += [] if is_met else [case]
    print("in brackets: Remora's cost over that side's, the median of the rounds")
    return missed


if __name__ == "__main__":
    sys.exit(main())
