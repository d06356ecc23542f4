"""What can be configured, one module for each room of the house. Each module builds the options of its room.

Only ``main``, ``wiring``, ``cli`` and ``migrations/env.py`` read settings; every other module gets its options passed.
"""

from chatkit_postgres.settings.deployment import Deployment
from chatkit_postgres.settings.errors import ConfigurationError
from chatkit_postgres.settings.fingerprint import fingerprint
from chatkit_postgres.settings.loading import load_settings, unknown_settings, variable_name
from chatkit_postgres.settings.settings import Settings
from chatkit_postgres.settings.urls import is_loopback

__all__ = [
    "ConfigurationError",
    "Deployment",
    "Settings",
    "fingerprint",
    "is_loopback",
    "load_settings",
    "unknown_settings",
    "variable_name",
]
