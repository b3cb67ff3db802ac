"""What every traffic adapter must do, and what the edge's adapter does besides."""

import pytest

from retrain.rollout_messages import Slot
from retrain.traffic.edge import EdgeTraffic
from retrain.traffic.traffic import Backend, Traffic, TrafficError

A = Backend(address="http://127.0.0.1:8000", version="1")
B = Backend(address="http://127.0.0.1:8001", version="2")


class Edge:
    """An edge process at the other end of the channel."""

    def __init__(self) -> None:
        self.routes: list[tuple[object, ...]] = []
        self.generation = -1
        self.broken = False
        self.deaf = False

    async def send_route(
        self,
        generation: int,
        *,
        stable: tuple[str, str],
        candidate: tuple[str, str] | None,
        weight: float,
        lease_s: float,
    ) -> int:
        if self.broken:
            raise ConnectionResetError("gone")
        if not self.deaf:
            self.routes.append((generation, stable, candidate, weight, lease_s))
            self.generation = max(self.generation, generation)
        return self.generation


@pytest.fixture
def edge() -> Edge:
    return Edge()


@pytest.fixture(params=["edge"])
def traffic(request: pytest.FixtureRequest, edge: Edge) -> Traffic:
    """Every adapter there is, with both slots in place and A stable."""
    made = {"edge": lambda: EdgeTraffic(edge, stable="A", lease_s=3.0)}[request.param]()
    made.place("A", A)
    made.place("B", B)
    return made


async def test_a_route_that_returned_is_read_back(traffic: Traffic) -> None:
    asked = await traffic.set_weights(generation=1, candidate_weight=0.25)
    assert asked == await traffic.read_back()
    assert (asked.stable, asked.weight) == ("A", 0.25)
    asked = await traffic.make_stable(generation=2, slot="B")
    assert asked == await traffic.read_back()
    assert (asked.stable, asked.weight) == ("B", 0.0)


async def test_a_lower_generation_changes_nothing(traffic: Traffic) -> None:
    await traffic.make_stable(generation=5, slot="B")
    await traffic.set_weights(generation=4, candidate_weight=0.5)
    await traffic.make_stable(generation=3, slot="A")
    found = await traffic.read_back()
    assert found is not None
    assert (found.generation, found.stable, found.weight) == (5, "B", 0.0)


async def test_the_same_route_twice_is_the_route_once(traffic: Traffic) -> None:
    once = await traffic.set_weights(generation=1, candidate_weight=0.5)
    assert await traffic.set_weights(generation=1, candidate_weight=0.5) == once


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
async def test_a_weight_that_is_no_share_is_refused(traffic: Traffic, weight: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        await traffic.set_weights(generation=1, candidate_weight=weight)


@pytest.mark.parametrize("slot", ["A", "B"])
async def test_an_empty_slot_gets_no_traffic(traffic: Traffic, slot: Slot) -> None:
    traffic.place(slot, None)
    with pytest.raises(ValueError, match="empty"):
        await traffic.set_weights(generation=1, candidate_weight=0.5)
    with pytest.raises(ValueError, match="empty"):
        await traffic.make_stable(generation=2, slot=slot)


async def test_the_edge_is_told_addresses_versions_and_the_lease(edge: Edge) -> None:
    traffic = EdgeTraffic(edge, stable="A", lease_s=3.0)
    traffic.place("A", A)
    await traffic.set_weights(generation=1, candidate_weight=0.0)
    traffic.place("B", B)
    await traffic.set_weights(generation=2, candidate_weight=0.1)
    one, two = (A.address, "1"), (B.address, "2")
    assert edge.routes == [(1, one, None, 0.0, 3.0), (2, one, two, 0.1, 3.0)]


async def test_only_a_share_needs_a_lease(edge: Edge, traffic: Traffic) -> None:
    await traffic.set_weights(generation=1, candidate_weight=0.0)
    await traffic.renew()
    assert len(edge.routes) == 1
    await traffic.set_weights(generation=2, candidate_weight=0.1)
    await traffic.renew()
    assert edge.routes[1] == edge.routes[2]


async def test_an_edge_that_is_gone_is_no_confirmation(edge: Edge, traffic: Traffic) -> None:
    edge.broken = True
    with pytest.raises(TrafficError, match="did not take route 1: gone"):
        await traffic.set_weights(generation=1, candidate_weight=0.5)
    assert await traffic.read_back() is None
    edge.broken, edge.deaf = False, True
    with pytest.raises(TrafficError, match="the edge has route -1, not 2"):
        await traffic.set_weights(generation=2, candidate_weight=0.0)
    assert await traffic.read_back() is None


async def test_a_lost_rollback_is_not_undone_by_a_renewal(edge: Edge, traffic: Traffic) -> None:
    await traffic.set_weights(generation=1, candidate_weight=0.5)
    edge.broken = True
    with pytest.raises(TrafficError):
        await traffic.set_weights(generation=2, candidate_weight=0.0)
    edge.broken = False
    await traffic.renew()
    assert [route[0] for route in edge.routes] == [1]
