"""One step of the graph at a time, on real tables."""
