"""References: built from rows in constant memory, calibrated, merged, imported."""
