"""The map of a cluster from what its nodes say, where they disagree too."""

from __future__ import annotations

from billing.balance.cluster_map import merged, parse_nodes

A, B, C, R = "a" * 40, "b" * 40, "c" * 40, "d" * 40

OF_A = f"""{A} 10.0.0.1:7000@17000,a.example myself,master - 0 0 1 connected 0-5460 [5461-<-{B}]
{B} 10.0.0.2:7000@17000,b.example master - 0 1 2 connected 5461-10922
{C} 10.0.0.3:7000@17000,c.example master - 0 1 3 connected 10923-16383
{R} 10.0.0.4:7000@17000,r.example slave {A} 0 1 1 connected
"""



def test_slots_replicas_and_slots_under_way() -> None:
    found = merged({("10.0.0.1", 7000): parse_nodes(OF_A, ("10.0.0.1", 7000))})
    assert found.owners[0] == found.owners[5460] == ("10.0.0.1", 7000)
    assert (found.owners[5461], found.owners[16383]) == (("10.0.0.2", 7000), ("10.0.0.3", 7000))
    assert found.replicas[("10.0.0.1", 7000)] == (("10.0.0.4", 7000),)
    assert len(found.primaries) == len(found.owning) == 3
    assert not found.by_majority, "one of three was asked"


def test_s49_the_higher_epoch_counts_whatever_the_old_primary_says_of_itself() -> None:
    new = OF_A.replace("myself,", "").replace(f"{A} 10.0.0.1:7000@17000,a.example master - 0 0 1 connected 0-5460", "X")
    new = "\n".join(line for line in new.splitlines() if not line.startswith("X"))
    new = new.replace(f"slave {A} 0 1 1 connected", "myself,master - 0 0 4 connected 0-5460")
    new += f"\n{A} 10.0.0.1:7000@17000,a.example master,fail - 9 9 1 disconnected\n"
    for order in ((OF_A, "10.0.0.1", new, "10.0.0.4"), (new, "10.0.0.4", OF_A, "10.0.0.1")):
        views = {(order[n + 1], 7000): parse_nodes(order[n], (order[n + 1], 7000)) for n in (0, 2)}
        found = merged(views)
        assert found.owners[0] == ("10.0.0.4", 7000)
        assert ("10.0.0.1", 7000) not in found.owning
        assert not found.by_majority, "1 of the 3 that vote was asked; the old one does not count"


def test_a_node_that_does_not_know_its_address_has_the_one_asked_and_names_serve_tls() -> None:
    text = f"{A} :7000@17000 myself,master - 0 0 1 connected 0-16383\n"
    found = merged({("seed", 7000): parse_nodes(text, ("seed", 7000))})
    assert set(found.owners) == {("seed", 7000)}
    assert found.by_majority
    named = parse_nodes(OF_A, ("10.0.0.1", 7000), prefer_names=True)
    assert named[1].host == ("b.example", 7000)


def test_a_slot_that_nobody_claims_has_no_owner_and_a_primary_without_slots_is_one() -> None:
    text = OF_A.replace("5461-10922", "5461-10000").replace("slave " + A, "master -")
    found = merged({("10.0.0.1", 7000): parse_nodes(text, ("10.0.0.1", 7000))})
    assert found.owners[10001] is None
    assert ("10.0.0.4", 7000) in found.primaries
    assert ("10.0.0.4", 7000) not in found.owning
