"""Which of many selectors select a pod, without asking each: they lie under a label that they ask for."""

from collections.abc import Iterable, Mapping

from weir_operator.cluster.selector import Operator, Selector

type _Ranked = tuple[int, Selector]


class Selection:
    """Selectors with their ranks. Made once; then a pod costs as much as there are selectors that may select it."""

    def __init__(self, ranked: Iterable[_Ranked]) -> None:
        self._anywhere: list[_Ranked] = []
        self._by_label: dict[tuple[str, str], list[_Ranked]] = {}
        for rank, selector in ranked:
            lists = [self._by_label.setdefault(label, []) for label in _one_of(selector)] or [self._anywhere]
            for ranked_under in lists:
                ranked_under.append((rank, selector))

    def of(self, labels: Mapping[str, str]) -> tuple[int, ...]:
        """The ranks of those that select what has these labels, in order."""
        found = [rank for rank, selector in self._anywhere if selector.matches(labels)]
        if self._by_label:
            for label in labels.items():
                found += [rank for rank, selector in self._by_label.get(label, ()) if selector.matches(labels)]
        return tuple(sorted(found))


def _one_of(selector: Selector) -> Iterable[tuple[str, str]]:
    """Labels of one name, of which whatever is selected has exactly one; none: it needs no label with a known value."""
    if selector.labels:
        return selector.labels[:1]
    within = next((one for one in selector.requirements if one.operator is Operator.IN), None)
    return [(within.key, value) for value in within.values] if within else ()
