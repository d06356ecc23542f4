"""The page of development mode: it is there, it is ours alone, and its parts load."""

import re

from tests.support.processes import ChatProcess, http


def test_the_page_and_all_its_parts_load_under_a_strict_policy(demo: ChatProcess) -> None:
    page = http.get(f"{demo.base_url}/")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    parts = re.findall(r'(?:src|href)="(/playground/[^"]+)"', page.text)
    assert len(parts) == 2
    script = http.get(f"{demo.base_url}/playground/page.js").text
    parts += [f"/playground/{name}" for name in re.findall(r'from "\./([^"]+)"', script)]
    for part in parts:
        assert http.get(f"{demo.base_url}{part}").status_code == 200, part
    # Nothing on it is somebody else's.
    assert re.findall(r'(?:src|href)="https?:', page.text) == []


def test_no_other_file_is_handed_out(demo: ChatProcess) -> None:
    for path in ("/playground/router.py", "/playground/..%2frouter.py", "/playground/%2e%2e/router.py", "/playground/"):
        assert http.get(f"{demo.base_url}{path}").status_code == 404
