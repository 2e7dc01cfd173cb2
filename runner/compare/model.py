from runner.compare import raw

COMPARATOR = raw.COMPARATOR
