"""The table of documents."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create `documents`."""
    op.create_table(
        "documents",
        sa.Column("document_id", sa.String(), primary_key=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("source_shard", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("title", sa.String()),
        sa.Column("media_type", sa.String()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("content_hash", sa.String()),
        sa.Column("etag", sa.String()),
        sa.Column("modified_at", sa.DateTime(timezone=True)),
        sa.Column("language", sa.String()),
        sa.Column("parser", sa.String()),
        sa.Column("n_pages", sa.Integer()),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stage", sa.String()),
        sa.Column("reason", sa.String()),
        sa.Column("duplicate_of", sa.String()),
        sa.Column("n_chunks", sa.Integer(), nullable=False),
        sa.Column("n_tokens", sa.Integer(), nullable=False),
        sa.Column("index_versions", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.String()),
    )
    op.create_index("ix_documents_uri", "documents", ["uri"])
    op.create_index("ix_documents_source_shard", "documents", ["source_shard"])
    op.create_index("ix_documents_source_status", "documents", ["source", "status"])


def downgrade() -> None:
    """Drop `documents`; the next ingest fills it again from the tables."""
    op.drop_table("documents")
