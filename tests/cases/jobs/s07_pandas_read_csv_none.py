"""pandas 2.0: read_csv treats the text 'None' as missing by default."""

import io
import json

import pandas as pd

frame = pd.read_csv(io.StringIO("plan,price\nNone,0\nBasic,10\nNone,0\nPro,30\n"))
plans = frame.groupby("plan").price.count().to_dict()
print(json.dumps({"plans": plans, "missing": int(frame.plan.isna().sum())}))
