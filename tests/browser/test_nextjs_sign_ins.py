"""The lines that the guide gives for other sign-ins fit into the example: the compiler takes them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.nextjs import APP, build
from tests.support.processes import ROOT

# The first of them may have to install and build the example.
pytestmark = pytest.mark.timeout(600)

GUIDE = (ROOT / "docs" / "nextjs.md").read_text()
PROVIDERS = dict(re.findall(r"^\*\*([\w. ]+)\*\*.*?```tsx\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE))
# As their own types say it, as far as the guide goes.
TYPES = """
declare module "@/auth" {
  export function auth(): Promise<{ user?: { id?: string; name?: string | null } } | null>;
}
declare module "@/lib/auth" {
  type Asked = { headers: Headers };
  export const auth: { api: {
    getSession(asked: Asked): Promise<{ user: { id: string; name: string } } | null>;
    getToken(asked: Asked): Promise<{ token: string }>;
  } };
}
declare module "@clerk/nextjs/server" {
  export function auth(): Promise<{ userId: string | null; getToken(): Promise<string | null> }>;
}
declare module "@clerk/nextjs" {
  export function SignInButton(): React.JSX.Element;
  export function SignOutButton(): React.JSX.Element;
}
"""


def files_in(block: str) -> dict[str, str]:
    """``// lib/session.ts`` begins a file."""
    parts = re.split(r"^// (\S+\.tsx?).*\n", block, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    build()


def test_three_sign_ins_are_described() -> None:
    assert set(PROVIDERS) == {"Auth.js", "Better Auth", "Clerk"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_its_lines_compile(tmp_path: Path, provider: str) -> None:
    app = tmp_path / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("node_modules", ".next", "*.tsbuildinfo", "next-env.d.ts"))
    (app / "node_modules").symlink_to(APP / "node_modules")
    (app / "next-env.d.ts").write_text('/// <reference types="next" />\n')
    (app / "lib" / "demo-sign-in.ts").unlink()
    shutil.rmtree(app / "app" / "api" / "session")
    (app / "types.d.ts").write_text(TYPES)
    for name, text in files_in(PROVIDERS[provider]).items():
        assert (app / name).exists(), f"the example has no {name}"
        (app / name).write_text(text)
    compiler = app / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        ["node", str(compiler), "--noEmit", "--incremental", "false", "-p", "."],  # noqa: S607
        cwd=app,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
