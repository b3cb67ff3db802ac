"""What a language model's answer cost and how it ended: times and tokens, never a word of it.

A generation is known even when the answer is not: a client that leaves in mid-stream, or a copy
that was cut, still says when the first token came. Do not put text here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

# How an answer ended: a metric label, so the set is closed.
FinishReason: TypeAlias = Literal[
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "function_call",
    "error",  # the server said so inside its answer
    "interrupted",  # the stream ended before the answer did
    "none",  # the server gave no reason
    "other",
]
FINISH_REASONS: Final[tuple[FinishReason, ...]] = get_args(FinishReason)

# Where the number of output tokens is from: the server said it; pieces of the stream were
# counted; pieces were counted in a copy that was cut, so that there were more; nobody knows; or
# there are none, as with embeddings.
TokenBasis: TypeAlias = Literal["usage", "counted", "cut", "unknown", "none"]
TOKEN_BASES: Final[tuple[TokenBasis, ...]] = get_args(TokenBasis)

# The words of servers for the same thing.
_SYNONYMS: Final[Mapping[str, FinishReason]] = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "limit": "length",
    "tool_use": "tool_calls",
    "abort": "interrupted",
    "cancelled": "interrupted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One answer of a language model, whole or not."""

    version: str
    weight: float  # 1 / probability of having been kept
    streamed: bool
    whole: bool  # the answer came to its end, and all of it was seen
    duration_s: float
    first_token_s: float | None  # None when it was not streamed, or nothing came
    input_tokens: int | None
    output_tokens: int | None
    basis: TokenBasis  # of the output tokens
    finish_reasons: tuple[FinishReason, ...]  # one for each choice

    @property
    def per_token_s(self) -> float | None:
        """The time per output token after the first; None when it cannot be known.

        A copy that was cut lacks tokens that the duration has in it, and an answer in one piece
        does not say when its first token was made.

        >>> from dataclasses import replace
        >>> told = Generation(
        ...     version="1", weight=1.0, streamed=True, whole=True, duration_s=1.1,
        ...     first_token_s=0.1, input_tokens=7, output_tokens=11, basis="usage",
        ...     finish_reasons=("stop",),
        ... )
        >>> told.per_token_s, replace(told, basis="cut").per_token_s
        (0.1, None)
        """
        if self.first_token_s is None or not self.output_tokens:
            return None
        if self.basis not in ("usage", "counted"):
            return None
        after_first_s = max(0.0, self.duration_s - self.first_token_s)
        return after_first_s / max(self.output_tokens - 1, 1)


def finish_reason(said: object) -> FinishReason:
    """What a server wrote, as one of the closed set.

    >>> finish_reason("stop"), finish_reason("eos"), finish_reason(None), finish_reason("??")
    ('stop', 'stop', 'none', 'other')
    """
    if said is None or said == "":
        return "none"
    if not isinstance(said, str):
        return "other"
    if said in _SYNONYMS:
        return _SYNONYMS[said]
    return next((known for known in FINISH_REASONS if known == said), "other")
