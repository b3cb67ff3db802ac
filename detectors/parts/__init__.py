"""The parts of a monitor: each binds one detector to the batches it is about."""
