from app.store.database_store import DatabaseStore

__all__ = ["DatabaseStore"]
