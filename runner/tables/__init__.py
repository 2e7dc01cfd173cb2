"""Tables that strangers wrote, opened within bounds: `duck` is the one door to duckdb, `malformed` what it raises."""
