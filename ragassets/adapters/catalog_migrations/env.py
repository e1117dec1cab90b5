"""What Alembic runs to migrate the catalog.

The connection, with its transaction, comes from `ragassets.adapters.catalog.Catalog.migrate`: all
versions are applied in that one transaction, or none.
"""

from alembic import context
from sqlalchemy import Connection

from ragassets.adapters.catalog import Base

_connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=_connection,
    target_metadata=Base.metadata,
    # SQLite cannot alter a column in place: Alembic copies the table instead.
    render_as_batch=True,
    # The caller holds the transaction.
    transactional_ddl=False,
)
context.run_migrations()
