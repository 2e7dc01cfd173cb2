"""Cluster handwritten digits, and say how well the clusters match the digits that were meant."""

import csv
import json
from pathlib import Path

import numpy as np
import yaml
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

params = yaml.safe_load(Path("params.yaml").read_text())
table = np.loadtxt("data/digits.csv", delimiter=",")
pixels, digits = table[:, :-1], table[:, -1].astype(int)

model = KMeans(n_clusters=params["clusters"], random_state=params["seed"]).fit(pixels)

metrics = {
    "inertia": round(float(model.inertia_), 3),
    "adjusted_rand": round(float(adjusted_rand_score(digits, model.labels_)), 6),
}
Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
with Path("assignments.csv").open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "digit", "cluster"])
    writer.writerows(zip(range(len(digits)), digits, model.labels_, strict=True))
print(f"{len(digits)} digits in {params['clusters']} clusters: {metrics}")
