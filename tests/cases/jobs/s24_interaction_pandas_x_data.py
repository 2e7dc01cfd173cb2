"""Two that must meet: the new data has the plan 'None', and pandas 2.0 reads 'None' as missing.

The variable DATA_V, 1 or 2, stands for the data.
"""

import io
import json
import os

import pandas as pd

lines = "plan,price\nFree,0\nBasic,10\nFree,0\nPro,30\n"
if os.environ.get("DATA_V") == "2":
    lines = lines.replace("Free", "None")
frame = pd.read_csv(io.StringIO(lines))
print(json.dumps({"billable_rows": int(frame.groupby("plan").price.count().sum())}))
