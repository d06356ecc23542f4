from chatkit_postgres.auth.user import User

__all__ = ["User"]
