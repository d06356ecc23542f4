from chatkit_postgres.db.database import Database, Row
from chatkit_postgres.db.statement import Statement

__all__ = ["Database", "Row", "Statement"]
