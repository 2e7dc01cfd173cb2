"""NumPy 2.0 (NEP 50): a float32 scalar plus a Python float stays float32."""

import json

import numpy as np

x = np.float32(3) + 3.1
total = np.float32(0)
for _ in range(100000):
    total = total + 0.1
print(json.dumps({"dtype": str(x.dtype), "x": float(x), "acc": round(float(total), 3)}))
