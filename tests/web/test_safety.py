"""Who is let in."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shoal.web.safety import Door, name_in
from tests.web.conftest import Opened

TOKEN = "a-token-that-is-long"


@pytest.mark.parametrize("host", ["localhost:8450", "127.0.0.1", "[::1]:80", "127.0.0.5:1"])
def test_this_machine_may_look(tmp_path: Path, opened: Opened, host: str) -> None:
    assert opened(tmp_path, host=host).get("/api/experiments").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8450", "127.0.0.1.evil.example", "10.0.0.1"]
)
def test_a_name_that_somebody_else_made_lead_here_is_refused(
    tmp_path: Path, opened: Opened, host: str
) -> None:
    got = opened(tmp_path, host=host).get("/api/experiments")
    assert got.status_code == 403
    assert "not a name of this machine" in got.json()["error"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "x"])
def test_a_page_of_another_site_is_refused(tmp_path: Path, opened: Opened, origin: str) -> None:
    client = opened(tmp_path)
    assert client.get("/api/experiments", headers={"origin": origin}).status_code == 403
    assert (
        client.get("/api/experiments", headers={"origin": "http://localhost:8450"}).status_code
        == 200
    )


def test_nothing_is_done_without_the_guard(tmp_path: Path, opened: Opened) -> None:
    client = opened(tmp_path)
    at = "/api/experiments/x/stop"
    assert "guard" in client.post(at).json()["error"]
    assert client.post(at, headers={"x-shoal-guard": "guess"}).status_code == 403
    guard = client.get("/api/guard").json()["guard"]
    assert client.post(at, headers={"x-shoal-guard": guard}).status_code in {404, 405}


def behind(tmp_path: Path, opened: Opened, host: str = "10.0.0.1:8450") -> TestClient:
    return opened(tmp_path, Door("10.0.0.1", TOKEN), host=host)


def test_elsewhere_a_token_is_needed(tmp_path: Path, opened: Opened) -> None:
    client = behind(tmp_path, opened)
    assert client.get("/api/experiments").status_code == 401
    assert client.get("/").headers["location"] == "login"
    for wrong in (b"Bearer no", b"Basic " + TOKEN.encode(), TOKEN.encode(), b"Bearer \xe4", b""):
        headers = [(b"authorization", wrong)]
        assert client.get("/api/experiments", headers=headers).status_code == 401
    right = {"authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/experiments", headers=right).status_code == 200
    # with the token in its header a request cannot come from somebody else's page
    assert client.post("/api/experiments/x/stop", headers=right).status_code in {404, 405}


def test_a_browser_keeps_the_token(tmp_path: Path, opened: Opened) -> None:
    client = behind(tmp_path, opened)
    assert client.get("/login").status_code == 200
    assert client.get("/login", params={"token": "wrong"}).status_code == 401
    assert client.post("/login", data={"token": "wrong"}).status_code == 401
    got = client.post("/login", data={"token": TOKEN})
    assert (got.status_code, got.headers["location"]) == (303, ".")
    cookie = got.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/api/experiments").status_code == 200
    assert client.post("/api/experiments/x/stop").status_code == 403, "a cookie is no guard"


def test_the_address_that_is_printed_lets_in(tmp_path: Path, opened: Opened) -> None:
    client = behind(tmp_path, opened)
    assert client.get("/login", params={"token": TOKEN}).status_code == 303
    assert client.get("/").status_code == 200


def test_a_long_body_is_refused(tmp_path: Path, opened: Opened) -> None:
    got = behind(tmp_path, opened).post("/login", content=b"x" * 100_000)
    assert got.status_code == 400


def test_browsers_are_told_what_they_may_do(tmp_path: Path, opened: Opened) -> None:
    client = opened(tmp_path)
    for path in ("/", "/api/experiments", "/api/none", "/static/shoal.css"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"],
)
def test_no_file_but_the_pages_own(tmp_path: Path, opened: Opened, path: str) -> None:
    assert opened(tmp_path).get(path).status_code == 404


@pytest.mark.parametrize(
    ("host", "name"),
    [("a:1", "a"), ("a", "a"), ("[::1]:2", "::1"), ("[::1]", "::1"), ("", ""), ("[", "")],
)
def test_names_in_a_host_header(host: str, name: str) -> None:
    assert name_in(host) == name
