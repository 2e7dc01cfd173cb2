"""Compare: outputs of the original run × outputs of the replay → a verdict for each, with the reason.

Bytes come first; only outputs whose bytes differ are opened, by the comparator that the contract names.

- `outputs` pairs outputs and finds each one's rule; `registry` knows the comparators by name, `others` those
  of other distributions, `extras` what some of them need
- `comparator` is the interface; `raw`, `text`, `jsonlike`, `table`, `array`, `image` and `model` implement it
- `jsonread`, `yamlread`, `tomlread`, `arrayread`, `zipread`, `pickles` read what strangers wrote
- `printed` compares what probes of models printed; whoever compares outputs runs them
- `mismatch`, `normalise`, `tolerance`, `malformed` are what they share

Files compared were written by strangers: they are streamed or bounded, a malformed one is a finding and
not an error, and nothing of them reaches a detail except through `shown`.
"""

from runner.compare.comparator import Comparator, Comparison
from runner.compare.image import difference_picture
from runner.compare.outputs import compare_outputs, differing_images, not_probed
from runner.compare.printed import Printed, Prober
from runner.compare.registry import by_suffix, check_installed, check_rule, rule_for
from runner.shown import shown

__all__ = [
    "Comparator",
    "Comparison",
    "Printed",
    "Prober",
    "by_suffix",
    "check_installed",
    "check_rule",
    "compare_outputs",
    "difference_picture",
    "differing_images",
    "not_probed",
    "rule_for",
    "shown",
]
