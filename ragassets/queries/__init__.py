"""Read-only answers over tables, catalog and collections: search, status, why, show, audit."""
