"""The command `distribute`."""

import typer

from chatkit_postgres.settings import ConfigurationError, load_settings


def distribute() -> None:
    """Distribute the tables of a migrated database over a Citus cluster, by user. Stop the servers first."""
    from chatkit_postgres.cli.databases import explained
    from chatkit_postgres.db.address import normalised_url
    from chatkit_postgres.db.distribution import CannotDistribute, cluster_at
    from chatkit_postgres.db.distribution import distribute as distribute_tables
    from chatkit_postgres.db.fitness import misfits_at, obstacles_to_migration_at
    from chatkit_postgres.db.migrations import head_revision, is_served_by_this_code, revision_at

    settings = load_settings()
    if settings.database_url is None:
        raise ConfigurationError(["DATABASE_URL: set it to the coordinator of a Citus cluster."])
    url = normalised_url(settings.database_url.get_secret_value())
    with explained():
        if misfits := misfits_at(url, migrates=False):
            raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])
        if not is_served_by_this_code(revision := revision_at(url)):
            seen = f"at revision {revision}" if revision is not None else "not migrated"
            raise ConfigurationError(
                [f"The database is {seen}; {head_revision()} is needed: run chatkit-postgres migrate first."]
            )
        if obstacles := obstacles_to_migration_at(url):
            raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in obstacles])
        try:
            steps = distribute_tables(url)
        except CannotDistribute as refused:
            raise ConfigurationError([str(refused)]) from refused
        for step in steps:
            typer.echo(f"{step.table:<18} {step.kind}, {step.rows} rows")
        cluster = cluster_at(url)
    nodes = ", ".join(cluster.nodes) if cluster is not None else ""
    typer.echo(f"{'The tables are' if steps else 'All tables were'} distributed over {nodes}.")
