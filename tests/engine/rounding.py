"""The job of `test_portable.py`: numbers whose last bits depend on the instructions that compute them, by who does."""

import hashlib
import json
import math
import random


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


chance = random.Random(0)
values = [chance.uniform(0.001, 50) for _ in range(20_000)]
found = {
    "libm": digest(" ".join((math.exp(x) + math.sin(x) + x**1.7).hex() for x in values).encode()),
}
try:
    import numpy
except ImportError:
    pass
else:
    made = numpy.random.default_rng(0)
    matrix, vector = made.standard_normal((200, 200)), made.standard_normal(200)
    wide = made.standard_normal(20_000)
    small = wide.astype("f4")
    arrays = {
        "solve": numpy.linalg.solve(matrix, vector),
        "dot": matrix @ vector,
        "svd": numpy.linalg.svd(matrix)[1],
        "float32": numpy.concatenate([numpy.exp(small), numpy.sin(small), numpy.tanh(small)]),
        "float64": numpy.concatenate([numpy.exp(wide), numpy.sin(wide), abs(wide) ** 1.7]),
    }
    found |= {name: digest(array.tobytes()) for name, array in arrays.items()}
print(json.dumps(found))
