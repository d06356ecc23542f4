"""The two forms of a statement that reads or writes rows of several owners at once.

On one PostgreSQL it is one round trip for all of them. In a cluster their rows are on several nodes, which one
statement cannot lock together, and of which one may be down: there it is run for each owner, on the node of their rows.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    of_one_owner: bool

    def own(self, table: str) -> str:
        """A further condition on the rows of a table."""
        return f"AND {table}.user_id = :owner" if self.of_one_owner else ""

    def name(self, name: str) -> str:
        return f"{name}_of_owner" if self.of_one_owner else name


OF_ALL = Form(of_one_owner=False)
OF_OWNER = Form(of_one_owner=True)
