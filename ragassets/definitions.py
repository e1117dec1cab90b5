"""The Dagster definitions of the configuration that this process finds: what Dagster loads."""

from ragassets.config import load_config
from ragassets.defs.graph import build_definitions

defs = build_definitions(load_config())
