from base64 import b64decode, b64encode
from datetime import UTC, datetime

from weir_operator.operate.certificates import Forced, Held, renew, service_names
from weir_operator.operate.secrets import ROTATE, bundle_patch, ca_data, forced, held, serving_data, updated

KEPT = renew(Held(), service_names("ns"), datetime(2027, 1, 1, tzinfo=UTC))
OWNER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weir-operator", "uid": "u"}


def secret(data, **annotations):
    metadata = {"name": "s", "resourceVersion": "7", "labels": {"mine": "yes"}, "annotations": annotations}
    return {"metadata": metadata, "type": "kubernetes.io/tls", "data": data}


def both():
    return secret(ca_data(KEPT)), secret(serving_data(KEPT))


def test_what_was_written_is_what_is_held():
    assert held(*both()) == Held(KEPT.authority, (), KEPT.serving)


def test_previous_cas_are_kept_beside_the_ca():
    other = renew(Held(), service_names("ns"), datetime(2027, 1, 1, tzinfo=UTC)).authority.certificate
    kept = renew(Held(KEPT.authority, (other,), KEPT.serving), service_names("ns"), datetime(2027, 1, 1, tzinfo=UTC))
    assert kept.previous == (other,)
    assert held(secret(ca_data(kept)), secret(serving_data(kept))).previous == (other,)


def test_secrets_that_are_not_there_or_cannot_be_read_hold_nothing():
    assert held(None, None) == Held()
    assert held(secret({"tls.crt": "?"}), secret({})) == Held()
    assert held({"metadata": {}}, {"metadata": {}, "data": None}) == Held()


def test_a_ca_whose_secret_is_gone_is_still_trusted():
    _, serving = both()
    assert held(None, serving) == Held(None, (KEPT.authority.certificate,), KEPT.serving)


def test_the_annotation_asks_for_the_one_that_carries_it():
    ca, serving = both()
    assert forced(ca, serving) == Forced()
    assert forced(secret({}, **{ROTATE: ""}), serving) == Forced(authority=True)
    assert forced(ca, secret({}, **{ROTATE: "now"})) == Forced(serving=True)


def test_nothing_is_written_where_nothing_differs():
    ca, _ = both()
    assert updated(ca, "s", ca_data(KEPT), OWNER) is None


def test_a_new_secret_is_owned():
    made = updated(None, "weir-ca", ca_data(KEPT), OWNER)
    assert made["metadata"]["name"] == "weir-ca"
    assert made["metadata"]["ownerReferences"] == [OWNER]
    assert made["type"] == "kubernetes.io/tls"
    assert b64decode(made["data"]["tls.key"]) == KEPT.authority.key


def test_one_that_is_there_keeps_what_is_others_and_loses_the_annotation_with_the_same_write():
    made = updated(secret(ca_data(KEPT), other="1", **{ROTATE: "x"}), "s", ca_data(KEPT), None)
    assert made["metadata"]["annotations"] == {"other": "1"}
    assert made["metadata"]["labels"]["mine"] == "yes"
    assert made["metadata"]["resourceVersion"] == "7"


def test_the_key_of_the_ca_is_in_its_own_secret_only():
    assert b64encode(KEPT.authority.key).decode() not in serving_data(KEPT).values()


def test_the_bundle_is_put_where_it_differs_and_only_into_the_state_that_was_seen():
    good = b64encode(b"ca").decode()
    configuration = {
        "metadata": {"resourceVersion": "5"},
        "webhooks": [{"clientConfig": {}}, {"clientConfig": {"caBundle": good}}, {"clientConfig": {"caBundle": "old"}}],
    }
    assert bundle_patch(configuration, b"ca") == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "5"},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": good},
        {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": good},
    ]
    assert bundle_patch({"metadata": {}, "webhooks": [{"clientConfig": {"caBundle": good}}]}, b"ca") == []
    assert bundle_patch({"metadata": {}}, b"ca") == []
