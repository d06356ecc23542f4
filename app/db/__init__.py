from app.db.database import Database, Row
from app.db.statement import Statement

__all__ = ["Database", "Row", "Statement"]
