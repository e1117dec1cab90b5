"""The Alembic environment of the catalog; its versions are shipped with the package."""
