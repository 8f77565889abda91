"""The oldest revision whose code may go on with this schema.

From here on a migration that only adds leaves it alone; one that takes away what an older version uses raises it to the
first revision that does without.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    compatible = op.create_table(
        "compatible",
        sa.Column("since", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("since", name="pk_compatible"),
    )
    op.bulk_insert(compatible, [{"since": revision}])


def downgrade() -> None:
    op.drop_table("compatible")
