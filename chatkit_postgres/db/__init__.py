from chatkit_postgres.db.database import Database
from chatkit_postgres.db.rows import Row
from chatkit_postgres.db.slots import BACKGROUND, BEGINNING, TURN, wait_policy
from chatkit_postgres.db.statement import Statement

__all__ = ["BACKGROUND", "BEGINNING", "TURN", "Database", "Row", "Statement", "wait_policy"]
