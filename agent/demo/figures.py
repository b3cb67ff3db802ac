"""Figures for the timeline, read out of what Remora's API and an artifact's manifest say."""

from typing import Any

from agent.demo.timeline import size

Json = dict[str, Any]


def canary_progress(status: Json) -> tuple[float, float]:
    """How far a canary is: by its steps, and by requests inside the last one."""
    rollout = status["rollout"] or {}
    steps = len(rollout.get("steps") or (1,))
    return float(rollout.get("step") or 0) + 0.5, float(steps)


def canary_said(status: Json) -> str:
    """Weight and requests of a canary, for its bar."""
    rollout = status["rollout"]
    if not rollout:
        return "gates"
    return f"{rollout['state']}, {rollout['weight']:.0%} of traffic, {rollout['requests']} requests"


def figures_said(metrics: Json) -> list[str]:
    """The first figures of a step of training, as a person reads them."""
    said = []
    for name, value in list(metrics.items())[:2]:
        if value is None or name == "passed":
            continue
        if name == "bytes":
            said.append(size(value))
        elif float(value).is_integer():
            said.append(f"{name.replace('_', ' ')} {int(value):,}")
        else:
            said.append(f"{name.replace('_', ' ')} {value:.3f}")
    return said


def quality(status: Json | None) -> str:
    accuracy = (status or {}).get("quality", {}).get("accuracy")
    return "–" if not accuracy else f"{accuracy['value']:.1%}"


def accuracy(manifest: Json) -> float | None:
    """Accuracy on the frozen holdout, as the gates measured it."""
    for measured in manifest["metrics"]["measurements"]:
        if measured["gate"].startswith("quality"):
            return float(measured["figures"]["candidate"])
    return None


def model_bytes(manifest: Json) -> float:
    return float(next(f["bytes"] for f in manifest["files"] if f["path"] == "model.onnx"))


def chosen(manifest: Json) -> str:
    """What compression did to size and time, and what was taken."""
    compared = manifest.get("compression", {}).get("comparison")
    if not compared:
        return "float32"
    before, after = compared["float32_bytes"], compared["int8_bytes"]
    times = compared["latency"]["b1"]
    return (
        f"{compared['taken']}: {size(before)} to {size(after)}, "
        f"from {times['float32_us']:.0f} to {times['int8_us']:.0f} µs for one row"
    )


def gate_words(entry: Json | None) -> list[str]:
    measured = ((entry or {}).get("data") or {}).get("measurements") or []
    return [f"gate {m['gate']}: {m['words']}" for m in measured if m["required"]]


def entries(rollout: Json | None, kind: str) -> list[Json]:
    """What the ledger holds of a rollout, of one kind, oldest first."""
    return [t for t in (rollout or {}).get("transitions", []) if t["kind"] == kind]


def rollback_time(rollout: Json | None) -> str:
    """From the decision to the edge's word that nobody is routed to the candidate any more."""
    steps = entries(rollout, "rollback")
    return "–" if len(steps) < 2 else f"{steps[-1]['at'] - steps[0]['at']:.2f} s"


def why_rolled_back(rollout: Json | None) -> str:
    steps = entries(rollout, "rollback")
    return str(steps[0]["reason"])[:220] if steps else "–"


def why_promoted(rollout: Json | None) -> str:
    steps = entries(rollout, "rollout")
    return str(steps[-1]["reason"])[:300] if steps else "–"
