"""Runs PostgreSQL's programs as another user than root, because they refuse to run as root."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Unprivileged:
    """The account to run as; None for the current user."""

    account: pwd.struct_passwd | None = None
    prefix: tuple[str, ...] = ()
    """A command that drops root but, if needed, keeps the right to enter directories of root."""

    def own(self, path: Path) -> None:
        # Only files of this server; parent directories are never changed.
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def run(self, command: list[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603 - our own command lines
            [*self.prefix, *command],
            check=check,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            **self._how(),
        )

    def popen(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a process of its own session, so that Ctrl-C in our terminal does not reach it."""
        return subprocess.Popen(  # noqa: S603 - our own command lines
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **self._how(),
        )

    def reaches(self, directory: Path) -> bool:
        # By entering it: access(2) checks the account and not the capabilities of the prefix.
        return self.run(["sh", "-c", 'cd -- "$1"', "sh", str(directory)], check=False).returncode == 0

    def _how(self) -> dict[str, Any]:
        # PG* variables of the caller would change the behaviour of the programs.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        how: dict[str, Any] = {"cwd": "/", "env": environment}
        if self.account is not None and not self.prefix:
            how |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return how


def unprivileged_user(directory: Path) -> Unprivileged:
    """The account to run as: the current user or, if that is root, ``postgres`` or ``nobody``.

    Raises PermissionError, with the cure, if there is no such account or it cannot walk to the directory.
    """
    if os.geteuid() != 0:
        return Unprivileged()
    account = next(filter(None, map(_account, ("postgres", "nobody"))), None)
    if account is None:
        raise PermissionError("PostgreSQL does not run as root, and there is no user postgres or nobody here.")
    plain = Unprivileged(account)
    if plain.reaches(directory):
        return plain
    # For example a checkout under /root. The account gets the one capability that allows it.
    setpriv = shutil.which("setpriv")
    for capability in ("+dac_read_search", "+dac_override") if setpriv else ():
        ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
        capable = Unprivileged(
            account, (str(setpriv), *ids, f"--inh-caps={capability}", f"--ambient-caps={capability}")
        )
        if capable.reaches(directory):
            return capable
    raise PermissionError(
        f"As root, PostgreSQL runs as user {account.pw_name}, who cannot reach {directory}. Set CHAT_DATA_DIR "
        "to a directory that others may enter, or run as another user."
    )


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
