"""An assistant and a model that need no key and no network."""
