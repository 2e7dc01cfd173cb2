"""networkx 3.6: node_link_data's default key of edges 'links' → 'edges'."""

import json
import warnings

import networkx as nx

warnings.simplefilter("ignore")
data = nx.node_link_data(nx.path_graph(3))
print(json.dumps({"keys": sorted(data), "n_links": len(data.get("links", []))}))
