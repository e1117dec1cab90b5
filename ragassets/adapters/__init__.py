"""One file per outside system; each implements a core protocol and raises only our errors."""
