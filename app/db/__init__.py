from app.db.database import Database
from app.db.statement import Statement

__all__ = ["Database", "Statement"]
