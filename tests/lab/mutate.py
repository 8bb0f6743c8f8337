"""Messages with bytes changed and ends cut off: the same ones each time, ten thousand in a second."""

import random
from collections.abc import Iterator, Sequence


def mutated(samples: Sequence[bytes], count: int = 10_000, seed: int = 1) -> Iterator[bytes]:
    """Mutations of `samples`: one to six bytes changed, and one time in four the end cut off."""
    chance = random.Random(seed)
    for _ in range(count):
        message = bytearray(chance.choice(samples))
        for _ in range(chance.randint(1, 6)):
            message[chance.randrange(len(message))] = chance.choice((0, 1, 0x3F, 0xC0, 0xFF, chance.randrange(256)))
        if chance.randrange(4) == 0:
            del message[chance.randrange(len(message)) :]
        yield bytes(message)
