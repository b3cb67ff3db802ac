"""The source `tail`: logs that a model server writes."""

from typing import Literal

from agent.config.section import Section, Text


class TailSource(Section):
    """Lines that are added to files."""

    kind: Literal["tail"]
    """What brings exchanges in."""
    path: Text
    """The file, or a pattern of files with * and ?."""
    format: Literal["json_lines", "sagemaker", "torchserve", "bentoml"]
    """What a line is."""
