from chatkit_postgres.store.database_store import DatabaseStore

__all__ = ["DatabaseStore"]
