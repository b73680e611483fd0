"""Resources and their tags, records of jobs, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "resource",
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("arn", sa.String(1024), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("token", sa.String(256)),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("updated_at", instant, nullable=False),
        sa.Column("ended_at", instant),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name="pk_resource"),
        sa.UniqueConstraint("kind", "token", name="uq_resource_kind_token"),
    )
    op.create_index("ix_resource_arn", "resource", ["arn"])
    op.create_index("ix_resource_kind_created_at", "resource", ["kind", "created_at", "id"])
    op.create_index("ix_resource_kind_name", "resource", ["kind", "name"])
    op.create_table(
        "tag",
        sa.Column("arn", sa.String(1024), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("arn", "key", name="pk_tag"),
    )
    op.create_table(
        "job_record",
        sa.Column("job_id", sa.String(80), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "part", "line", name="pk_job_record"),
    )
    op.create_index("ix_job_record_job_id_state", "job_record", ["job_id", "state"])
    op.create_table(
        "lease",
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("owner", sa.String(40), nullable=False),
        sa.Column("until", instant, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
