"""polars 0.20: Expr.count() no longer counts nulls."""

import json

import polars as pl

frame = pl.DataFrame({"u": ["a", "a", "b"], "v": [1, None, None]})
print(json.dumps({"count": frame.select(pl.col("v").count()).item()}))
