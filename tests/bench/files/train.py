"""A job of about three seconds: read a table and 2,000 notes, fit a model, write what came of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

table = pd.read_csv("data/table.csv")
words = {int(path.stem): len(path.read_text().split()) for path in Path("data/notes").iterdir()}
table["words"] = (table["id"] % 2000).map(words)
features = table.drop(columns=["id", "label"])
train, test, train_label, test_label = train_test_split(features, table["label"], random_state=0)
model = HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=0).fit(train, train_label)
score = model.predict_proba(test)[:, 1]

pd.DataFrame({"id": table["id"].loc[test.index], "score": score}).to_csv("predictions.csv", index=False)
accuracy = float(np.mean((score > 0.5) == test_label))
Path("metrics.json").write_text(json.dumps({"rows": len(table), "accuracy": accuracy}) + "\n")
print(f"{len(table)} rows, accuracy {accuracy:.4f}")
