from chatkit_postgres.playground.router import playground_router

__all__ = ["playground_router"]
