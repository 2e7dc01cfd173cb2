"""scikit-learn 1.4: KMeans(n_init) default 10 → 'auto' (1 for k-means++)."""

import json
import warnings

from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

warnings.simplefilter("ignore")
X, _ = load_digits(return_X_y=True)
fitted = KMeans(n_clusters=10, random_state=3).fit(X)
print(json.dumps({"inertia": round(float(fitted.inertia_), 1)}))
