"""Registries: what a 401 asks for, what may be sent where, and failures as one line."""

from __future__ import annotations

import io
import json
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
import urllib3

from nscontainer.errors import RegistryError, one_line
from nscontainer.image.registry import auth, client, faults
from nscontainer.image.registry.credentials import Credentials, Found
from nscontainer.image.registry.hosts import Endpoint
from nscontainer.image.registry.transport import Transport

Answer = tuple[int, Mapping[str, str], bytes]
ME = Credentials("me", "s3cret", source="config.json")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            ['Bearer realm="https://a.example/t",service="b, c",scope="repository:x:pull,push"'],
            [("bearer", {"realm": "https://a.example/t", "service": "b, c", "scope": "repository:x:pull,push"})],
        ),
        (['Basic realm="a \\"quoted\\" name"'], [("basic", {"realm": 'a "quoted" name'})]),
        (['Negotiate, Basic realm=lab , Bearer realm = "r"'], [("negotiate", {}), ("basic", {"realm": "lab"}), ("bearer", {"realm": "r"})]),
        (["Basic realm=a", 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['BEARER Realm="r",realm="other"'], [("bearer", {"realm": "r"})]),
        (['realm="no scheme"', "", ",,,", '"'], []),
        (['Bearer realm="unclosed'], [("bearer", {"realm": ""})]),
    ],
)  # fmt: skip
def test_challenges(values, expected):
    """WWW-Authenticate is read as RFC 9110 writes it: several challenges, quotes, commas in quotes."""
    assert [(one.scheme, one.parameters) for one in auth.challenges(values)] == expected


def test_scopes_are_joined_by_resource():
    """Actions for one repository come into one scope; several repositories stay several."""
    assert auth.join_scopes(
        "repository:a:pull", "repository:a:push,pull repository:localhost:5000/b:pull"
    ) == ("repository:a:pull,push", "repository:localhost:5000/b:pull")


class Fake(Transport):
    """Answers from a list; keeps what was sent."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.sent: list[tuple[str, str, dict[str, str], Any]] = []
        self.given: list[urllib3.HTTPResponse] = []
        self.slow_s = 0.0

    def send(self, method: str, url: str, *, headers: Any, body: Any = None, **_: Any) -> Any:
        self.sent.append((method, url, dict(headers), body))
        time.sleep(self.slow_s)
        status, answer, text = self.answers.pop(0)
        response = urllib3.HTTPResponse(io.BytesIO(text), answer, status, preload_content=False)
        self.given.append(response)
        return response


def token(value: str, **more: object) -> Answer:
    return 200, {}, json.dumps({"token": value, **more}).encode()


BEARER = 'Bearer realm="https://auth.example/t?x=1",service="s v"'
UNAUTHORISED: Answer = (401, {"WWW-Authenticate": BEARER}, b"{}")
FINE: Answer = (200, {}, b"fine")


def a_client(fake: Fake, found: Found = Found(), **options: Any) -> client.Client:  # noqa: B008
    endpoint = Endpoint("reg.example", "reg.example", **options)
    return client.Client(endpoint, "team/x", fake, look_up=lambda *_: found)


def test_a_token_is_fetched_once_and_kept():
    """The first 401 brings a token for our scope; what follows is sent with it at once."""
    fake = Fake(UNAUTHORISED, token("T1"), FINE, FINE)
    one = a_client(fake)
    assert one.get("a", "a", limit=99)[0] == one.get("b", "b", limit=99)[0] == b"fine"
    assert [sent[1] for sent in fake.sent] == [
        "https://reg.example/v2/team/x/a",
        "https://auth.example/t?x=1&scope=repository%3Ateam%2Fx%3Apull&service=s+v",
        "https://reg.example/v2/team/x/a",
        "https://reg.example/v2/team/x/b",
    ]
    assert [sent[2].get("Authorization") for sent in fake.sent] == [
        None,
        None,
        "Bearer T1",
        "Bearer T1",
    ]


def test_a_token_that_ran_out_is_renewed(monkeypatch):
    """One that its time says is over isn't sent; one that is refused is replaced, once."""
    fake = Fake(UNAUTHORISED, token("T1", expires_in=300), FINE)
    one = a_client(fake)
    one.get("a", "a", limit=99)
    fake.answers = [UNAUTHORISED, token("T2"), FINE]  # revoked early
    one.get("b", "b", limit=99)
    assert fake.sent[-1][2]["Authorization"] == "Bearer T2"
    now = time.monotonic()
    monkeypatch.setattr(
        time, "monotonic", lambda: now + 55
    )  # 60 s where none is given, and a margin
    fake.answers = [UNAUTHORISED, token("T3"), FINE]
    one.get("c", "c", limit=99)
    assert "Authorization" not in fake.sent[-3][2]
    assert fake.sent[-1][2]["Authorization"] == "Bearer T3"
    fake.answers = [UNAUTHORISED, token("T4"), UNAUTHORISED]
    with pytest.raises(RegistryError) as caught:
        one.get("d", "d", limit=99)
    assert caught.value.reason == "unauthorized"


def test_one_thread_fetches_for_all():
    """Threads that are refused together ask for one token."""
    fake = Fake(token("T1"), token("T2"))
    fake.slow_s = 0.05
    one = auth.Authorizer(fake, "reg.example", Found, insecure=False)
    offered = auth.challenges([BEARER])
    got: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: got.append(one.answer(offered, "repository:x:pull", None)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["Bearer T1"] * 4
    assert len(fake.sent) == 1


def test_password_and_identity_token():
    """A password goes to the realm by Basic, a token that stands for it by POST (OAuth 2)."""
    fake = Fake(UNAUTHORISED, token("T1"), FINE)
    a_client(fake, Found(ME)).get("a", "a", limit=99)
    assert fake.sent[1][2]["Authorization"] == ME.basic
    assert fake.sent[1][1].endswith("&account=me")
    fake = Fake(UNAUTHORISED, (200, {}, b'{"access_token": "T1"}'), FINE)
    a_client(fake, Found(Credentials(identity_token="r3fresh"))).get("a", "a", limit=99)
    method, url, headers, body = fake.sent[1]
    assert (method, url) == ("POST", "https://auth.example/t?x=1")
    assert b"grant_type=refresh_token" in body
    assert b"refresh_token=r3fresh" in body
    assert "Authorization" not in headers
    assert fake.sent[2][2]["Authorization"] == "Bearer T1"


def test_a_refused_token_leaves_no_connection_open():
    """Where the token server refuses, the registry's own answer is closed too, not left to the collector."""
    fake = Fake(UNAUTHORISED, (401, {}, b"{}"))
    with pytest.raises(RegistryError, match=r"credentials for reg\.example .* were refused"):
        a_client(fake, Found(ME)).get("a", "a", limit=99)
    assert [response.closed for response in fake.given] == [True, True]


def test_basic_is_sent_to_whom_it_belongs():
    """Basic answers a Basic challenge; with no credentials the 401 stays, with the way in as hint."""
    basic = (401, {"WWW-Authenticate": 'Basic realm="lab"'}, b"")
    fake = Fake(basic, FINE)
    a_client(fake, Found(ME)).get("a", "a", limit=99)
    assert fake.sent[1][2]["Authorization"] == ME.basic
    with pytest.raises(RegistryError) as caught:
        a_client(Fake(basic)).get("a", "a", limit=99)
    assert "docker login reg.example" in str(caught.value.hint)


def test_a_password_does_not_go_over_plain_http():
    """A registry can't make us send the password to a realm without TLS."""
    plain = (401, {"WWW-Authenticate": 'Bearer realm="http://evil.example/t"'}, b"")
    fake = Fake(plain)
    with pytest.raises(RegistryError, match="over plain http: not sent"):
        a_client(fake, Found(ME)).get("a", "a", limit=99)
    assert len(fake.sent) == 1
    fake = Fake(plain)
    local = client.Client(
        Endpoint("localhost:5000", "localhost:5000", ("http",)),
        "x",
        fake,
        look_up=lambda *_: Found(ME),
    )
    with pytest.raises(RegistryError, match="over plain http: not sent"):  # nor from this machine
        local.get("a", "a", limit=99)
    assert len(fake.sent) == 1


@pytest.mark.parametrize(
    "to", ["https://cdn.example/b?sig=x", "https://reg.example:8443/b", "//cdn.example/b"]
)
def test_redirects_drop_authorization(to):
    """Another host or port gets the request, and neither token nor a chance to ask for one."""
    fake = Fake(
        UNAUTHORISED,
        token("T1"),
        (307, {"Location": to}, b""),
        (401, {"WWW-Authenticate": BEARER}, b""),
    )
    with pytest.raises(RegistryError):
        a_client(fake, Found(ME)).get("a", "a", limit=99)
    assert "Authorization" in fake.sent[2][2]
    assert "Authorization" not in fake.sent[3][2]
    assert len(fake.sent) == 4


def test_redirects_that_are_not_followed():
    """From https to another's http, to no web address, and in circles."""
    odd = ("https://x:99999/b", "https://[/b", "//[x]/b", "https://x:y/b")
    for to in ("http://cdn.example/b", "ftp://x/y", "file:///etc/passwd", "", *odd):
        with pytest.raises(RegistryError):
            a_client(Fake((307, {"Location": to}, b""))).get("a", "a", limit=99)
    fake = Fake(*[(302, {"Location": "/again"}, b"")] * 20)
    with pytest.raises(RegistryError, match="circles"):
        a_client(fake).get("a", "a", limit=99)
    fake = Fake((307, {"Location": "http://reg.example/b"}, b""), FINE)  # TLS ends in front of it
    a_client(fake).get("a", "a", limit=99)
    assert fake.sent[1][1] == "https://reg.example/b"


def test_too_much_is_not_read():
    """A manifest that never ends is broken off."""
    fake = Fake((200, {}, b"x" * 1001))
    with pytest.raises(RegistryError, match="more than 1000 bytes"):
        a_client(fake).get("a", "a", limit=1000)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are noted instead."""
    waits: list[float] = []

    def wait(_self: threading.Event, timeout: float | None = None) -> bool:
        waits.append(timeout or 0)
        return False

    monkeypatch.setattr(threading.Event, "wait", wait)
    return waits


def test_passing_failures_are_tried_again(no_waiting):
    """503 and 429 are tried five times with longer waits, or as Retry-After says; then it is over."""
    busy: Answer = (503, {}, b"")
    fake = Fake(busy, busy, (429, {"Retry-After": "7"}, b""), FINE)
    assert a_client(fake).get("a", "a", limit=99)[0] == b"fine"
    assert no_waiting[0] < no_waiting[1] < no_waiting[2] == 7
    fake = Fake(*[busy] * 9)
    with pytest.raises(RegistryError, match="failed with 503"):
        a_client(fake).get("a", "a", limit=99)
    assert len(fake.sent) == 5


def test_a_long_wait_is_an_error_at_once(no_waiting):
    """A registry that wants to be left alone for hours is told of, not waited for."""
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit reached"}]}'
    with pytest.raises(
        RegistryError, match="pull rate limit reached; it asks to wait 9999 s"
    ) as caught:
        a_client(Fake((429, {"Retry-After": "9999"}, body))).get("a", "a", limit=99)
    assert caught.value.reason == "rate-limited"
    assert no_waiting == []


def test_a_mirror_is_not_waited_for(no_waiting):
    """Its first failure is its last: there are others to ask."""
    fake = Fake((503, {}, b""))
    with pytest.raises(RegistryError):
        a_client(fake, mirror=True).get("a", "a", limit=99)
    assert no_waiting == []


def test_what_a_registry_says_is_one_line():
    """Its words are quoted without control characters, and not without end."""
    said = "denied\x1b[2J\nnow" + "!" * 1000
    body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
    with pytest.raises(RegistryError) as caught:
        a_client(Fake((403, {}, body))).get("a", "what", limit=99)
    line = one_line(caught.value)
    assert "denied [2J now!" in line
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errors": 3}', b"[" * 50000, b"\xff"])
def test_whatever_a_registry_says(body):
    """No answer makes it anything but a RegistryError."""
    with pytest.raises(RegistryError, match="answered 418"):
        a_client(Fake((418, {}, body))).get("a", "what", limit=99)


def test_urls_are_not_quoted():
    """A signed address of a store isn't shown when it fails."""
    fake = Fake((307, {"Location": "https://cdn.example/b?sig=s3cret"}, b""), (403, {}, b""))
    with pytest.raises(RegistryError) as caught:
        a_client(fake).get("a", "a", limit=99)
    assert "s3cret" not in one_line(caught.value)


def test_network_failures_in_words():
    """A bad certificate says how to add its CA; a full stop of the line may pass."""
    bad = ssl.SSLCertVerificationError(1, "certificate verify failed")
    bad.verify_message = "self-signed certificate"
    error = faults.of_exception(
        urllib3.exceptions.SSLError(bad), "https://reg.example:5000/v2/?s=1"
    )
    assert one_line(error) == (
        "the TLS certificate of reg.example:5000 is not trusted: self-signed certificate (put its CA "
        "into /etc/docker/certs.d/reg.example:5000/ca.crt, or name it by SSL_CERT_FILE)"
    )
    lost = urllib3.exceptions.ProtocolError(
        "Connection aborted.", ConnectionResetError(104, "reset")
    )
    assert isinstance(faults.of_exception(lost, "https://a/"), faults.PassingError)


@pytest.mark.parametrize("realm", ["https://t:99999/", "https://[/", "https://", "ftp://t/", "x"])
def test_a_token_server_that_is_no_web_address(realm):
    """What a registry names is refused in one line, whatever it is."""
    fake = Fake((401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}, b""))
    with pytest.raises(RegistryError, match="names a token server that can't be asked"):
        a_client(fake).get("a", "a", limit=99)
