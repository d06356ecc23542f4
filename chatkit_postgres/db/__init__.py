from chatkit_postgres.db.database import Database
from chatkit_postgres.db.rows import Row
from chatkit_postgres.db.slots import BACKGROUND, BEGINNING, OVERDUE, TURN, wait_policy
from chatkit_postgres.db.statement import Statement

__all__ = ["BACKGROUND", "BEGINNING", "OVERDUE", "TURN", "Database", "Row", "Statement", "wait_policy"]
