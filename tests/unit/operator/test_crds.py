"""The custom resource definitions say what the models say: the same fields, enums, bounds and defaults, both ways."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from weir_operator import grammar, models
from weir_sidecar.contract.trust import State

CRDS = Path(__file__).parents[3] / "charts/weir/files/crds"
DEFINITIONS = {
    definition["spec"]["names"]["kind"]: definition
    for definition in (yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml")))
}
MODELS = {**models.KINDS, "TrustException": models.TrustException}

# What only files on one machine have: it is not in any schema, and kubectl says that it does not know the field.
ONE_MACHINE = {"spec.upstream.roots[].file", "spec.rules[].http[].credentialFrom.file"}
# What this version does not support anywhere; no schema has it either.
UNSUPPORTED = {"spec.capture.inbound"}
# A policy of a namespace is about this namespace.
CLUSTER_ONLY = {"InterceptionPolicy": {"spec.namespaceSelector"}}
# A reference of a cluster policy has no default: it must name the kind, and only one is allowed.
NO_DEFAULT = {"ClusterInterceptionPolicy": {"spec.trustPolicyRef.kind"}}

DURATION = {"x-kubernetes-int-or-string": True, "maximum": grammar.MAX_DURATION, "maxLength": 63}
GRAMMARS = {
    "ports": {"x-kubernetes-int-or-string": True, "minimum": 1, "maximum": 65535, "maxLength": 11},
    "ids": {"x-kubernetes-int-or-string": True, "minimum": 0, "maximum": grammar.MAX_ID, "maxLength": 21},
    "duration": DURATION,
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "name": {"type": "string", "maxLength": 253},
    "rule name": {"type": "string", "maxLength": 63},
    "host": {"type": "string", "maxLength": 255},
    "subject host": {"type": "string", "maxLength": 253},
    "cidr": {"type": "string", "maxLength": 43},
    "address": {"type": "string", "maxLength": 39},
    "interface": {"type": "string", "maxLength": 15},
    "ja4": {"type": "string", "maxLength": 36},
    "method": {"type": "string", "maxLength": 32},
    "header name": {"type": "string", "maxLength": 128},
    "header value": {"type": "string", "maxLength": 4096},
    "path": {"type": "string", "maxLength": 1024},
    "parameter": {"type": "string", "maxLength": 1024},
    "media type": {"type": "string", "maxLength": 128},
    "body": {"type": "string", "maxLength": 4096},
}
SCALARS = {
    inspect.StrType: {"type": "string"},
    inspect.BoolType: {"type": "boolean"},
    inspect.DictType: {"type": "object"},
}


def schema_of(kind):
    (version,) = DEFINITIONS[kind]["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def given_type(kind):
    """A field's type, without the None that stands for "not given"."""
    if isinstance(kind, inspect.UnionType):
        (kind,) = (part for part in kind.types if not isinstance(part, inspect.NoneType))
    return kind


def differences(path, kind, schema, absent, no_default):
    """Where a schema does not say what a model's type says."""
    kind = given_type(kind)
    if isinstance(kind, inspect.Metadata):
        yield from lacking(path, GRAMMARS[kind.extra["grammar"]], schema)
    elif isinstance(kind, inspect.StructType):
        yield from struct_differences(path, kind, schema, absent, no_default)
    elif isinstance(kind, inspect.VarTupleType):
        yield from lacking(path, {"type": "array"} | ({"minItems": 1} if kind.min_length else {}), schema)
        yield from differences(f"{path}[]", kind.item_type, schema["items"], absent, no_default)
        if not kind.min_length and "minItems" in schema:
            yield f"{path}: an empty list is allowed"
    elif isinstance(kind, inspect.EnumType):
        yield from lacking(path, {"type": "string", "enum": [word.value for word in kind.cls]}, schema)
    elif isinstance(kind, inspect.IntType):
        most = kind.lt - 1 if kind.lt is not None else kind.le
        yield from lacking(path, {"type": "integer", "minimum": kind.ge, "maximum": most}, schema)
    else:
        yield from lacking(path, SCALARS[type(kind)], schema)


def struct_differences(path, kind, schema, absent, no_default):
    fields = {field.encode_name: field for field in kind.fields}
    below = {name: f"{path}.{name}" if path else name for name in (*fields, *schema["properties"])}
    expected = {name for name in fields if below[name] not in absent}
    if expected != set(schema["properties"]):
        yield f"{path}: the model has {sorted(expected)}, the schema {sorted(schema['properties'])}"
    required = {name for name in expected if fields[name].required}
    if required != set(schema.get("required", ())):
        yield f"{path}: required are {sorted(required)}, in the schema {schema.get('required')}"
    for name in expected & set(schema["properties"]):
        part = schema["properties"][name]
        yield from differences(below[name], fields[name].type, part, absent, no_default)
        default = fields[name].default
        scalar = default if isinstance(default, str | int) and below[name] not in no_default else None
        if part.get("default") != scalar:
            yield f"{below[name]}: the default is {scalar}, in the schema {part.get('default')}"


def lacking(path, expected, schema):
    for key, value in expected.items():
        if schema.get(key) != value:
            yield f"{path}: {key} is {value}, in the schema {schema.get(key)}"


def nodes(schema, path=""):
    """Each part of a schema, with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def patterns(part):
    """The regular expressions of a part's own rules."""
    rules = (rule["rule"] for rule in part.get("x-kubernetes-validations", ()))
    return [found[1] for rule in rules if (found := re.fullmatch(r"self\.matches\(r'(.*)'\)", rule))]


def parts_of(grammar_name):
    """Each place in a schema whose text has a grammar."""
    for kind, model in MODELS.items():
        fields = {field.encode_name: field for field in inspect.type_info(model).fields}
        yield from _parts(fields["spec"].type, schema_of(kind)["properties"]["spec"], grammar_name)


def _parts(kind, schema, grammar_name):
    kind = given_type(kind)
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            if field.encode_name in schema["properties"]:
                yield from _parts(field.type, schema["properties"][field.encode_name], grammar_name)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _parts(kind.item_type, schema["items"], grammar_name)
    elif isinstance(kind, inspect.Metadata) and kind.extra["grammar"] == grammar_name:
        yield schema


def accepted(grammar_name, text):
    """Whether all schemas let a text in that is of a grammar; RE2 as the API server has it, ASCII by itself."""
    parts = list(parts_of(grammar_name))
    assert parts
    own = {pattern for part in parts for pattern in (patterns(part) or [part.get("pattern", "")])} - {""}
    assert len(own) == 1, "a grammar is written in one way everywhere"
    return len(text) <= parts[0]["maxLength"] and re.search(own.pop(), text, re.ASCII) is not None


def test_there_are_five_kinds():
    assert set(DEFINITIONS) == set(MODELS)


@pytest.mark.parametrize("kind", MODELS)
def test_the_schema_says_what_the_model_says(kind):
    absent = ONE_MACHINE | UNSUPPORTED | CLUSTER_ONLY.get(kind, set())
    fields = {field.encode_name: field for field in inspect.type_info(MODELS[kind]).fields}
    schema = schema_of(kind)
    assert set(schema["properties"]) == set(fields)
    spec = schema["properties"]["spec"]
    assert list(differences("spec", fields["spec"].type, spec, absent, NO_DEFAULT.get(kind, set()))) == []


@pytest.mark.parametrize(
    "drift",
    [
        lambda spec: spec["properties"].pop("startup"),
        lambda spec: spec["properties"].update(more={"type": "string"}),
        lambda spec: spec["properties"]["startup"]["enum"].pop(),
        lambda spec: spec["properties"]["priority"].update(maximum=9999),
        lambda spec: spec["properties"]["priority"].pop("default"),
        lambda spec: spec["properties"]["rules"]["items"].pop("required"),
        lambda spec: spec["properties"]["capture"]["properties"]["ports"].pop("minItems"),
        lambda spec: spec["properties"]["capture"]["properties"]["dns"]["properties"]["cache"].update(type="string"),
    ],
)
def test_a_drift_is_noticed(drift):
    spec = copy.deepcopy(schema_of("ClusterInterceptionPolicy")["properties"]["spec"])
    drift(spec)
    kind, no_default = inspect.type_info(models.InterceptionSpec), NO_DEFAULT["ClusterInterceptionPolicy"]
    assert len(list(differences("spec", kind, spec, ONE_MACHINE | UNSUPPORTED, no_default))) == 1


def test_what_no_schema_has_is_in_the_models():
    paths = set()

    def walk(kind, path):
        kind = given_type(kind)
        if isinstance(kind, inspect.StructType):
            for field in kind.fields:
                paths.add(f"{path}.{field.encode_name}")
                walk(field.type, f"{path}.{field.encode_name}")
        elif isinstance(kind, inspect.VarTupleType):
            walk(kind.item_type, f"{path}[]")

    for model in (models.InterceptionSpec, models.TrustSpec):
        walk(inspect.type_info(model), "spec")
    assert paths >= ONE_MACHINE | UNSUPPORTED


@pytest.mark.parametrize("kind", MODELS)
def test_every_field_is_described(kind):
    bare = [path for path, part in nodes(schema_of(kind)) if path != "metadata" and not part.get("description")]
    assert bare == []


@pytest.mark.parametrize("kind", MODELS)
def test_everything_has_a_bound_so_that_rules_have_a_cost(kind):
    for path, part in nodes(schema_of(kind)):
        if part.get("type") == "array":
            assert "maxItems" in part, path
        if part.get("type") == "string" and path not in ("apiVersion", "kind"):
            assert {"maxLength", "enum", "format"} & set(part), path


@pytest.mark.parametrize("kind", MODELS)
def test_every_rule_says_what_is_allowed(kind):
    for path, part in nodes(schema_of(kind)):
        for rule in part.get("x-kubernetes-validations", ()):
            assert "allowed: " in rule["message"], path


CEL_1_28 = {"all", "contains", "duration", "exists_one", "getSeconds", "has", "matches", "size", "type"}


@pytest.mark.parametrize("kind", MODELS)
def test_rules_use_only_functions_that_the_oldest_supported_kubernetes_has(kind):
    """An API server admits new rules only with what the version before it had as well."""
    for path, part in nodes(schema_of(kind)):
        for rule in part.get("x-kubernetes-validations", ()):
            without_text = re.sub(r"r?'[^']*'", "", rule["rule"])
            assert set(re.findall(r"(\w+)\(", without_text)) <= CEL_1_28, path


@pytest.mark.parametrize(
    ("of_namespace", "of_cluster"),
    [("InterceptionPolicy", "ClusterInterceptionPolicy"), ("TrustPolicy", "ClusterTrustPolicy")],
)
def test_the_schemas_of_cluster_and_namespace_differ_where_they_must(of_namespace, of_cluster):
    one, other = (dict(nodes(schema_of(kind))) for kind in (of_namespace, of_cluster))
    selector = {path for path in other if path.startswith("spec.namespaceSelector")}
    assert set(other) - set(one) == selector
    assert set(one) <= set(other)

    def said(part):
        return {key: value for key, value in part.items() if key not in ("description", "properties", "items")}

    different = {path for path in one if said(one[path]) != said(other[path])}
    reference = {"spec.trustPolicyRef", "spec.trustPolicyRef.kind"} if selector else set()
    assert different == reference
    (mine,), (theirs,) = (DEFINITIONS[kind]["spec"]["versions"] for kind in (of_namespace, of_cluster))
    assert mine["additionalPrinterColumns"] == theirs["additionalPrinterColumns"]


@pytest.mark.parametrize("kind", MODELS)
def test_a_definition_is_named_after_its_kind(kind):
    definition = DEFINITIONS[kind]
    names = definition["spec"]["names"]
    assert definition["metadata"]["name"] == f"{names['plural']}.weir.dev"
    assert names["singular"] == kind.lower()
    assert names["categories"] == ["weir"]
    assert definition["spec"]["scope"] == ("Cluster" if kind in models.CLUSTER_KINDS else "Namespaced")
    (version,) = definition["spec"]["versions"]
    assert f"{definition['spec']['group']}/{version['name']}" == models.API_VERSION
    assert version["subresources"] == {"status": {}}


def test_the_states_of_an_exception_are_those_of_the_trust_cache():
    state = schema_of("TrustException")["properties"]["status"]["properties"]["state"]
    assert set(state["enum"]) == {state.value.capitalize() for state in State}


ADDRESSES = st.ip_addresses()
LABELS = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
TEXTS = {
    "cidr": st.one_of(ADDRESSES.map(str), ADDRESSES.map(lambda found: f"{found}/{found.max_prefixlen}")),
    "address": ADDRESSES.map(str),
    "host": st.one_of(NAMES, NAMES.map("*.{}".format), NAMES.map("{}.".format), st.just("*")),
    "subject host": st.one_of(NAMES.map(str.lower), ADDRESSES.map(str), st.just("*")),
    "name": st.from_regex(grammar._NAME, fullmatch=True),
    "rule name": st.from_regex(grammar._RULE_NAME, fullmatch=True),
    "interface": st.from_regex(grammar._INTERFACE, fullmatch=True),
    "ja4": st.from_regex(grammar._JA4, fullmatch=True),
    "media type": st.from_regex(grammar._MEDIA_TYPE, fullmatch=True),
}


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
def test_what_a_file_may_say_an_object_may_say_too(name, data):
    text = data.draw(TEXTS[name])
    try:
        grammar.TEXTS[name](text)
    except grammar.UnreadableError:
        return
    assert accepted(name, text), text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cidr", "10.0.0.256"),
        ("cidr", "10.0.0.0/33"),
        ("cidr", "10.0.0"),
        ("cidr", "example.com"),
        ("cidr", "2001:db8:::1"),
        ("cidr", "2001:db8"),
        ("cidr", "::/129"),
        ("cidr", "01.2.3.4"),
        ("address", "10.0.0.0/8"),
        ("address", "fe80::1%eth0"),
        ("host", "https://example.com"),
        ("host", "example.com:443"),
        ("host", "a..b"),
        ("host", "*example.com"),
        ("host", "a.*.b"),
        ("host", "bücher.example"),
        ("host", ""),
        ("subject host", "*.example.com"),
        ("subject host", "Example.com"),
        ("name", "Web"),
        ("name", "-web"),
        ("rule name", "no way"),
        ("rule name", "x" * 64),
        ("interface", "eth0/1"),
        ("interface", "*"),
        ("ja4", "t13d1516h2"),
        ("media type", "json"),
        ("media type", "*/*"),
        ("media type", "text/html; charset=utf-8"),
        ("ports", "http"),
        ("ports", "80:90"),
        ("ids", "-1"),
        ("duration", "1 h"),
        ("duration", "1d"),
    ],
)
def test_what_is_of_no_grammar_is_refused(name, text):
    assert not accepted(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ports", "8000-8100"),
        ("ids", "0-4294967294"),
        ("duration", "1h30m"),
        ("duration", "0.5s"),
        ("duration", "500ms"),
    ],
)
def test_numbers_may_be_text(name, text):
    grammar.NUMBERS[name](text)
    assert accepted(name, text)
