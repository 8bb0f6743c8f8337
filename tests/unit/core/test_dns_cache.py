import dns.message
import dns.rrset

from weir_sidecar.core import dns_cache
from weir_sidecar.core.dns_cache import DNSCache
from weir_sidecar.wire.dns import parse_query

SERVER = ("192.0.2.53", 53)


def ask(name="www.example.test.", rdtype="A", **options) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()


def reply(query: bytes, ttl: int = 60) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(query))
    message.answer.append(dns.rrset.from_text(message.question[0].name, ttl, "IN", "A", "192.0.2.1"))
    return message.to_wire()


def stored(query: bytes, answer: bytes) -> DNSCache:
    cache = DNSCache()
    cache.put(SERVER, query, parse_query(query), answer, now=100)
    return cache


def test_an_answer_ages_and_ends() -> None:
    query = ask()
    cache = stored(query, reply(query, 60))
    again = ask("wWw.example.test.")
    question = parse_query(again)
    aged = cache.get(SERVER, again, question, 130.5)
    assert aged is not None
    message = dns.message.from_wire(aged)
    assert dns.message.from_wire(again).is_response(message)
    assert message.question[0].name.labels[0] == b"wWw"
    assert message.answer[0].ttl == 30
    assert cache.get(SERVER, again, question, 160) is None


def test_another_question_server_or_option_is_another_entry() -> None:
    query = ask()
    cache = stored(query, reply(query))
    for other in (ask(rdtype="AAAA"), ask("x.example.test."), ask(use_edns=0), ask(want_dnssec=True), ask(flags=0)):
        assert cache.get(SERVER, other, parse_query(other), 101) is None
    assert cache.get(("192.0.2.54", 53), query, parse_query(query), 101) is None
    assert cache.get(SERVER, query, parse_query(query), 101) is not None


def test_zero_ttl_truncated_and_unreadable_answers_are_not_kept() -> None:
    query = ask()
    good = reply(query)
    for answer in (reply(query, 0), good[:2] + bytes((good[2] | 2,)) + good[3:], good[:-1]):
        assert stored(query, answer).get(SERVER, query, parse_query(query), 100) is None


def test_the_number_of_answers_is_bounded() -> None:
    cache = DNSCache()
    queries = [ask(f"n{n}.example.test.") for n in range(dns_cache.ENTRIES + 1)]
    for query in queries:
        cache.put(SERVER, query, parse_query(query), reply(query), now=0)
    assert cache.get(SERVER, queries[0], parse_query(queries[0]), 1) is None
    assert cache.get(SERVER, queries[-1], parse_query(queries[-1]), 1) is not None
