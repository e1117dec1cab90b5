"""Vector indexes that stay true to their sources, as Dagster assets."""
