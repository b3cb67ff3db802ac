"""What the members of a row are called that is pushed, or read from a log."""

from agent.config.section import ColumnName, Section


class RowNames(Section):
    """Names of what is not a feature; everything else in a row is one."""

    id: ColumnName = "request_id"
    """The request's id, by which labels are joined; none: one is made."""
    at: ColumnName = "timestamp"
    """When it was asked: RFC 3339 or unix seconds; none: when it arrived."""
    version: ColumnName = "version"
    """The model version that answered; none: the stable one."""
    prediction: ColumnName = "prediction"
    """What the model said."""
    score: ColumnName = "score"
    """How sure it was: a number, or a list of them."""
    label: ColumnName = "label"
    """What turned out true, where it is known already."""
    features: ColumnName = "features"
    """An object that holds the features, where they do not stand beside the rest."""
