from app.playground.router import playground_router

__all__ = ["playground_router"]
