"""A thousand policies and two thousand pods: the work is done, and what it took is told, not judged."""

import time

from samples.policy_objects import policy
from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.policies import Policies

RULES = [
    {
        "name": f"r{number}",
        "action": "Intercept",
        "match": {
            "hosts": [f"h{number}.example", f"*.h{number}.example"],
            "ports": [443],
            "cidrs": ["10.0.0.0/8"],
            "protocols": ["tls", "http"],
        },
    }
    for number in range(5)
]


def one_of_many(number):
    return policy(
        f"p{number}", f"ns{number % 100}", podSelector={"matchLabels": {"app": f"a{number}"}}, rules=RULES
    )  # fmt: skip


def plans(policies, pods):
    return [policies.plan(NamespaceFacts(f"ns{number % 100}", {}), {"app": f"a{number}"}) for number in pods]


def test_a_thousand_policies_are_compiled_and_a_change_of_one_changes_one(note):
    objects = [one_of_many(number) for number in range(1000)]
    before = time.process_time()
    policies = Policies.of(objects)
    first = plans(policies, range(1000))
    note.append(f"1,000 policies of 5 rules read, 1,000 plans made: {time.process_time() - before:.2f} s of CPU")
    assert len({plan.policies for plan in first}) == 1000

    objects[7] = objects[7] | {"spec": {**objects[7]["spec"], "defaultAction": "Deny"}}
    before = time.process_time()
    changed = policies.followed_by(objects)
    second = plans(changed, (number % 1000 for number in range(2000)))
    note.append(f"one of them changed, the plans of 2,000 pods: {time.process_time() - before:.3f} s of CPU")
    differing = [
        number
        for number, (old, new) in enumerate(zip(first, second, strict=False))
        if old.config.revision != new.config.revision
    ]
    assert differing == [7]
