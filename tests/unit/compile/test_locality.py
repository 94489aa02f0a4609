"""Which endpoints come first for whom: Istio's documented examples, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.catalog.model import Instance
from meshlib_control.compile.locality import (
    NO_TRAITS,
    CallerTraits,
    Group,
    Locality,
    LocalitySetting,
    Preference,
    arranged,
    asked_traits,
    effective_setting,
)
from meshlib_control.config.kinds import (
    LoadBalancer,
    LocalityDistribute,
    LocalityFailover,
    LocalityLbSetting,
    ZoneAwareLbSetting,
)

REGION, ZONE, SUB_ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"


def group(locality: str, *weights: int, labels: Sequence[Mapping[str, str]] = ()) -> Group:
    """Endpoints of one locality, of these weights; or of weight 1, with these labels."""
    weights = weights or (1,) * (len(labels) or 1)
    instances = [
        Instance(f"{locality}-{index}", f"10.0.0.{index}", 80, labels=labels[index] if labels else {}, weight=weight)
        for index, weight in enumerate(weights)
    ]
    members = tuple(((f"{instance.id}", 80), instance) for instance in instances)
    return Group(Locality.parse(locality), members, sum(weights))


def order(
    groups: Sequence[Group],
    setting: LocalitySetting,
    caller: str = "",
    labels: Mapping[str, str] | None = None,
    failing_over: bool = True,
) -> list[tuple[str, int]]:
    """Localities with their priorities."""
    preference = Preference(setting, Locality.parse(caller), labels or {}, failing_over)
    return [("/".join(filter(None, found.locality)), found.priority) for found in arranged(groups, preference)]


def weights(groups: Sequence[Group], caller: str, *rules: LocalityDistribute) -> dict[str, int]:
    preference = Preference(LocalitySetting(distribute=rules), Locality.parse(caller), {}, failing_over=False)
    return {"/".join(filter(None, found.locality)): found.weight for found in arranged(groups, preference)}


EVERYWHERE = [
    group(locality)
    for locality in ("us-east/z1/a", "us-east/z1/b", "us-east/z2/a", "us-west/z1/a", "eu-west/z1/a", "asia/z1/a")
]


def test_failover_goes_from_the_nearest_to_the_farthest() -> None:
    """Same sub-zone, same zone, same region, then all other regions alike (Istio's locality failover task)."""
    assert order(EVERYWHERE, LocalitySetting(), "us-east/z1/a") == [
        ("us-east/z1/a", 0),
        ("us-east/z1/b", 1),
        ("us-east/z2/a", 2),
        ("asia/z1/a", 3),
        ("eu-west/z1/a", 3),
        ("us-west/z1/a", 3),
    ]


def test_failover_of_a_region_names_its_successor() -> None:
    setting = LocalitySetting(failover=(LocalityFailover("asia", "us-west"), LocalityFailover("us-east", "eu-west")))
    assert order(EVERYWHERE, setting, "us-east/z1/a")[3:] == [("eu-west/z1/a", 3), ("asia/z1/a", 4), ("us-west/z1/a", 4)]
    assert order(EVERYWHERE, setting, "us-west/z9/q") == [
        ("us-west/z1/a", 0),  # nothing is nearer, and priorities have no gaps
        ("asia/z1/a", 1),
        ("eu-west/z1/a", 1),
        ("us-east/z1/a", 1),
        ("us-east/z1/b", 1),
        ("us-east/z2/a", 1),
    ]


def test_zones_of_one_name_in_two_regions_are_not_the_same() -> None:
    assert order([group("r1/z"), group("r2/z")], LocalitySetting(), "r2/z") == [("r2/z", 0), ("r1/z", 1)]


def test_a_caller_of_unknown_locality_prefers_endpoints_of_unknown_locality() -> None:
    assert order([group("r1/z"), group("")], LocalitySetting()) == [("", 0), ("r1/z", 1)]


@pytest.mark.parametrize("setting", [LocalitySetting(), LocalitySetting(failover=(LocalityFailover("us-east", "asia"),))])
def test_without_outlier_detection_all_are_alike(setting: LocalitySetting) -> None:
    assert {priority for _, priority in order(EVERYWHERE, setting, "us-east/z1/a", failing_over=False)} == {0}


# failoverPriority, after the examples of LocalityLoadBalancerSetting in Istio's API.
def labelled(*found: Mapping[str, str]) -> Group:
    return group("r/z", labels=found)


def priorities(
    groups: Sequence[Group], setting: LocalitySetting, labels: Mapping[str, str], caller: str = ""
) -> dict[str, int]:
    """By endpoint: its number."""
    preference = Preference(setting, Locality.parse(caller), labels, failing_over=True)
    return {
        instance.id.rpartition("-")[2]: found.priority
        for found in arranged(groups, preference)
        for _, instance in found.members
    }


def test_labels_in_common_decide_in_their_order() -> None:
    """P0: both match; P1: only the first; a second label counts for nothing where the first differs."""
    found = labelled({"net": "n1", "v": "1"}, {"net": "n1", "v": "2"}, {"net": "n2", "v": "1"}, {"net": "n2", "v": "2"})
    setting = LocalitySetting(failover_priority=("net", "v"))
    assert priorities([found], setting, {"net": "n1", "v": "1"}) == {"0": 0, "1": 1, "2": 2, "3": 2}


def test_labels_with_values_do_not_ask_the_caller() -> None:
    """``version=v1``: those come first for everybody."""
    found = labelled({"version": "v1"}, {"version": "v2"})
    setting = LocalitySetting(failover_priority=("version=v1",))
    assert priorities([found], setting, {"version": "v2"}) == {"0": 0, "1": 1}
    assert priorities([found], setting, {}) == {"0": 0, "1": 1}


def test_labels_of_the_topology_are_parts_of_localities() -> None:
    groups = [group("r1/z1/s", labels=[{}]), group("r1/z2/s", labels=[{}, {}]), group("r2/z1/s", labels=[{}, {}, {}])]
    setting = LocalitySetting(failover_priority=(REGION, ZONE, SUB_ZONE))
    preference = Preference(setting, Locality.parse("r1/z2/s"), {}, failing_over=True)
    assert [(found.locality, found.priority) for found in arranged(groups, preference)] == [
        (("r1", "z2", "s"), 0),
        (("r1", "z1", "s"), 1),
        (("r2", "z1", "s"), 2),
    ]


def test_a_label_that_both_lack_is_in_common() -> None:
    assert priorities([labelled({}, {"v": "1"})], LocalitySetting(failover_priority=("v",)), {}) == {"0": 0, "1": 1}


def test_priorities_have_no_gaps() -> None:
    setting = LocalitySetting(failover_priority=("a", "b", "c"))
    assert priorities([labelled({"a": "x"}, {"a": "y"})], setting, {"a": "x", "b": "x", "c": "x"}) == {"0": 0, "1": 1}


def test_a_locality_is_split_by_labels_with_its_weight() -> None:
    found = group("r/z", labels=[{"v": "1"}, {"v": "2"}, {"v": "2"}])
    setting = LocalitySetting(failover_priority=("v",))
    parts = arranged([found], Preference(setting, Locality("r", "z", ""), {"v": "2"}, failing_over=True))
    assert [(part.priority, part.weight, len(part.members)) for part in parts] == [(0, 2, 2), (1, 1, 1)]


def test_failover_refines_the_priorities_of_labels() -> None:
    """Both given: labels first, then localities within equal labels."""
    groups = [group(place, labels=[{"v": "1"}, {"v": "2"}]) for place in ("r1/z", "r2/z", "r3/z")]
    setting = LocalitySetting(failover_priority=("v",), failover=(LocalityFailover("r1", "r3"),))
    preference = Preference(setting, Locality.parse("r1/z"), {"v": "1"}, failing_over=True)
    found = [(part.locality.region, part.members[0][1].labels["v"], part.priority) for part in arranged(groups, preference)]
    assert found == [("r1", "1", 0), ("r3", "1", 1), ("r2", "1", 2), ("r1", "2", 3), ("r3", "2", 4), ("r2", "2", 5)]


# distribute, after Istio's locality distribution task.
TASK = LocalityDistribute("region1/zone1/*", {"region1/zone1/*": 70, "region1/zone2/*": 20, "region3/zone4/*": 10})


def test_distribution_gives_weights_and_takes_out_the_rest() -> None:
    groups = [group(f"region{r}/zone{z}/s") for r, z in ((1, 1), (1, 2), (2, 3), (3, 4))]
    assert weights(groups, "region1/zone1/any", TASK) == {"region1/zone1/s": 70, "region1/zone2/s": 20, "region3/zone4/s": 10}


def test_distribution_needs_no_outlier_detection_and_makes_no_priorities() -> None:
    setting = LocalitySetting(distribute=(TASK,))
    assert order([group("region1/zone2/s")], setting, "region1/zone1", failing_over=True) == [("region1/zone2/s", 0)]


def test_distribution_for_callers_elsewhere_changes_nothing() -> None:
    groups = [group("region1/zone1/s", 2), group("region2/zone3/s", 1)]
    assert weights(groups, "region2/zone3/s", TASK) == {"region1/zone1/s": 2, "region2/zone3/s": 1}


def test_the_first_distribution_that_covers_the_caller_holds() -> None:
    first, second = LocalityDistribute("a/b", {"a": 100}), LocalityDistribute("*", {"c": 100})
    groups = [group("a/x"), group("c/x")]
    assert weights(groups, "a/b/c", first, second) == {"a/x": 100}
    assert weights(groups, "q", first, second) == {"c/x": 100}


def test_localities_under_one_name_share_its_weight_by_their_own() -> None:
    """Rounded up, as in Istio."""
    groups = [group("r/z1", 1), group("r/z2", 3), group("r/z3", 2)]
    assert weights(groups, "any", LocalityDistribute("*", {"r/*": 100})) == {"r/z1": 17, "r/z2": 50, "r/z3": 34}


def test_nothing_is_left_when_no_endpoint_is_where_it_should_be() -> None:
    assert weights([group("x/y")], "any", LocalityDistribute("*", {"r": 100})) == {}


def test_zone_awareness_keeps_the_region_on_one_level() -> None:
    """Clients choose zones among the endpoints of priority 0; it needs no outlier detection."""
    setting = LocalitySetting(failover=(LocalityFailover("us-east", "us-west"),), min_cluster_size=6)
    assert order(EVERYWHERE, setting, "us-east/z1/a", failing_over=False) == [
        ("us-east/z1/a", 0),
        ("us-east/z1/b", 0),
        ("us-east/z2/a", 0),
        ("us-west/z1/a", 1),
        ("asia/z1/a", 2),
        ("eu-west/z1/a", 2),
    ]


@pytest.mark.parametrize(
    ("balancer", "expected"),
    [
        (None, LocalitySetting(distribute=(TASK,))),
        (LoadBalancer(simple="RANDOM"), LocalitySetting(distribute=(TASK,))),
        (LoadBalancer(locality_lb_setting=LocalityLbSetting()), LocalitySetting()),  # replaces all of the mesh's
        (LoadBalancer(locality_lb_setting=LocalityLbSetting(enabled=True)), LocalitySetting()),
        (LoadBalancer(locality_lb_setting=LocalityLbSetting(enabled=False, distribute=(TASK,))), None),
        (LoadBalancer(zone_aware_lb_setting=ZoneAwareLbSetting()), LocalitySetting(min_cluster_size=6)),
        (LoadBalancer(zone_aware_lb_setting=ZoneAwareLbSetting(min_cluster_size=2)), LocalitySetting(min_cluster_size=2)),
        (LoadBalancer(zone_aware_lb_setting=ZoneAwareLbSetting(enabled=False)), None),
    ],
)
def test_a_rule_replaces_what_holds_for_the_mesh(balancer: LoadBalancer | None, expected: LocalitySetting | None) -> None:
    assert effective_setting(LocalitySetting(distribute=(TASK,)), balancer) == expected


def test_a_mesh_may_switch_it_off_and_a_rule_on_again() -> None:
    off = LocalitySetting(enabled=False)
    assert effective_setting(off, None) is None
    assert effective_setting(off, LoadBalancer(locality_lb_setting=LocalityLbSetting())) == LocalitySetting()


@pytest.mark.parametrize(
    ("setting", "failing_over", "expected"),
    [
        (None, True, NO_TRAITS),
        (LocalitySetting(), False, NO_TRAITS),
        (LocalitySetting(), True, CallerTraits(locality=True)),
        (LocalitySetting(distribute=(TASK,)), False, CallerTraits(locality=True)),
        (LocalitySetting(min_cluster_size=6), False, CallerTraits(locality=True)),
        (LocalitySetting(failover_priority=("a", "b=c")), True, CallerTraits(labels=frozenset({"a"}))),
        (LocalitySetting(failover_priority=("version=v1",)), True, NO_TRAITS),
        (LocalitySetting(failover_priority=(ZONE,)), True, CallerTraits(True, frozenset({ZONE}))),
        (
            LocalitySetting(failover_priority=("a",), failover=(LocalityFailover("x", "y"),)),
            True,
            CallerTraits(True, frozenset({"a"})),
        ),
    ],
)
def test_what_is_asked_of_callers(setting: LocalitySetting | None, failing_over: bool, expected: CallerTraits) -> None:
    assert asked_traits(setting, failing_over=failing_over) == expected


PLACES = ["/".join(parts) for parts in product(("r1", "r2", "r3"), ("z1", "z2"), ("", "s"))]
SETTINGS = st.builds(
    LocalitySetting,
    failover=st.sampled_from([(), (LocalityFailover("r1", "r2"),)]),
    failover_priority=st.lists(st.sampled_from(["v", "w=1", ZONE]), max_size=3, unique=True).map(tuple),
    min_cluster_size=st.sampled_from([0, 6]),
)
CALLERS = st.tuples(st.sampled_from(PLACES), st.fixed_dictionaries({}, optional={"v": st.sampled_from("12")}))
GROUPS = st.lists(st.sampled_from(PLACES), unique=True, min_size=1).flatmap(
    lambda places: st.tuples(
        *(
            st.lists(
                st.fixed_dictionaries({}, optional={"v": st.sampled_from("12"), "w": st.sampled_from("12")}), min_size=1
            ).map(
                lambda labels, place=place: group(place, labels=labels)  # type: ignore[misc]
            )
            for place in places
        )
    )
)


@given(GROUPS, SETTINGS, CALLERS, st.booleans())
def test_every_endpoint_has_one_priority_and_priorities_have_no_gaps(
    groups: tuple[Group, ...], setting: LocalitySetting, caller: tuple[str, dict[str, str]], failing_over: bool
) -> None:
    found = arranged(groups, Preference(setting, Locality.parse(caller[0]), caller[1], failing_over))
    members = [(part.locality, member[0]) for part in found for member in part.members]
    assert sorted(members) == sorted((part.locality, member[0]) for part in groups for member in part.members)
    levels = {part.priority for part in found}
    assert levels == set(range(len(levels)))
    assert len({(part.locality, part.priority) for part in found}) == len(found)  # clients refuse duplicates


@given(GROUPS, SETTINGS, CALLERS, st.booleans())
def test_callers_who_do_not_differ_in_what_is_asked_get_the_same(
    groups: tuple[Group, ...], setting: LocalitySetting, caller: tuple[str, dict[str, str]], failing_over: bool
) -> None:
    """What makes it safe to share the resources of a scope."""
    traits = asked_traits(setting, failing_over=failing_over)
    place, labels = caller
    reduced = {key: value for key, value in labels.items() if key in traits.labels}
    whole = Preference(setting, Locality.parse(place), labels, failing_over)
    shared = Preference(setting, Locality.parse(place if traits.locality else ""), reduced, failing_over)
    assert arranged(groups, whole) == arranged(groups, shared)
