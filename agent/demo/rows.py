"""Real rows of UCI Adult as they arrive in life: first as they were, then drifting.

A drift here changes what is asked and, for the population, who asks; the truth stays the truth.
"""

import csv
import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("adult.csv.gz")
TARGET = "income"
NUMERIC = frozenset({"age", "education_num", "capital_gain", "capital_loss", "hours_per_week"})
UNUSED = frozenset({"fnlwgt", TARGET})  # a census weight is nothing a client would send
NEW_CATEGORY = "Gig-platform"
MONTHS = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One row: what a client sends, and what turns out true."""

    features: dict[str, Any]
    income: str


def read_people() -> list[Person]:
    """All rows, in the order of the file."""
    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as file:
        return [
            Person(
                features={
                    name: float(text) if name in NUMERIC else text
                    for name, text in row.items()
                    if name not in UNUSED
                },
                income=row[TARGET],
            )
            for row in csv.DictReader(file)
        ]


def as_before(people: list[Person], rng: random.Random) -> Iterator[Person]:
    """Rows drawn from the whole population, for ever."""
    while True:
        yield rng.choice(people)


def drifting(people: list[Person], rng: random.Random) -> Iterator[Person]:
    """The same source after a release elsewhere and a new market.

    The client now reports age in months (a unit changed), every second person is over 38 (the
    population moved), and some work where nobody worked before (a category appeared).
    """
    older = [person for person in people if person.features["age"] > 38]
    while True:
        person = rng.choice(older if rng.random() < 0.5 else people)
        features = dict(person.features)
        features["age"] *= MONTHS
        if features["workclass"] == "Private" and rng.random() < 0.15:
            features["workclass"] = NEW_CATEGORY
        yield Person(features=features, income=person.income)
