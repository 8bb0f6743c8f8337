from weir_operator.cluster.policies import PolicyKey
from weir_operator.operate.store import Store

A = PolicyKey("TrustPolicy", "one", "a")


def obj(version, name="a", uid="u1", kind="TrustPolicy", **more):
    metadata = {"namespace": "one", "name": name, "uid": uid, "resourceVersion": str(version), **more}
    return {"kind": kind, "metadata": metadata}


def store():
    changes = []
    made = Store(lambda: changes.append(1))
    return made, changes


def held(one):
    return {key.name: obj["metadata"]["resourceVersion"] for key, obj in one.objects.items()}


def test_the_later_state_counts_whatever_the_order():
    one, changes = store()
    one.seen("MODIFIED", obj(10))
    one.seen("ADDED", obj(9))
    one.put(obj(10))
    assert held(one) == {"a": "10"}
    assert len(changes) == 1


def test_one_that_is_deleted_is_gone_and_one_of_the_same_name_is_another():
    one, changes = store()
    one.put(obj(1))
    one.seen("DELETED", obj(2, uid="another"))
    assert held(one) == {"a": "1"}
    one.seen("DELETED", obj(2))
    assert held(one) == {}
    one.drop(A)
    assert len(changes) == 2


def test_a_listing_drops_what_is_no_more_and_adds_what_was_not_told():
    one, _ = store()
    one.put(obj(1))
    one.put(obj(2, "b"))
    one.relist(dict(one.objects), [obj(2, "b"), obj(3, "c")])
    assert held(one) == {"b": "2", "c": "3"}


def test_what_happens_while_a_listing_is_under_way_counts_more():
    one, _ = store()
    for name in "abc":
        one.put(obj(1, name))
    before = dict(one.objects)
    one.put(obj(5, "a"))  # changed
    one.drop(PolicyKey("TrustPolicy", "one", "b"))  # deleted
    one.put(obj(6, "d"))  # made
    one.relist(before, [obj(1, "a"), obj(1, "b"), obj(1, "c")])
    assert held(one) == {"a": "5", "c": "1", "d": "6"}


def test_an_object_that_did_not_change_stays_the_very_same():
    one, changes = store()
    one.put(obj(1))
    before = one.objects[A]
    one.relist(dict(one.objects), [obj(1)])
    assert one.objects[A] is before
    assert len(changes) == 1


def test_of_exceptions_who_wrote_what_is_not_kept():
    one, _ = store()
    one.put(obj(1, kind="TrustException", managedFields=[{}]))
    one.put(obj(1, managedFields=[{}]))
    assert [("managedFields" in obj["metadata"]) for obj in one.objects.values()] == [False, True]
