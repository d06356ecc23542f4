"""ConfigurationError."""


class ConfigurationError(Exception):
    """One line per problem: the setting's name, what is wrong, and the cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
