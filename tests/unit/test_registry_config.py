"""Registries: which servers to ask, whose credentials, which platform. Files only, no network."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nscontainer.errors import RegistryError, SpecError
from nscontainer.image.registry import credentials, hosts, manifests, platform, transport
from nscontainer.image.registry.hosts import Endpoint


def registries(tmp_path: Path, text: str, docker: object = None) -> hosts.Registries:
    (tmp_path / "registries.toml").write_text(text)
    (tmp_path / "daemon.json").write_text(json.dumps(docker or {}))
    return hosts.load([str(tmp_path), str(tmp_path / "none")], str(tmp_path / "daemon.json"))


def test_docker_hub_is_elsewhere_and_only_by_tls():
    """docker.io's server is registry-1.docker.io; a registry of any name is https alone."""
    assert hosts.Registries().endpoints("docker.io") == [
        Endpoint("docker.io", "registry-1.docker.io")
    ]
    assert hosts.Registries().itself("ghcr.io").schemes == ("https",)
    assert hosts.Registries().itself("127.evil.example").schemes == ("https",)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:1", "[::1]:5"]
)
def test_loopback_may_be_plain_and_keeps_its_certificate_checked(host):
    """Plain http is tried there after https, and TLS still has to be good."""
    found = hosts.Registries().itself(host)
    assert (found.schemes, found.verify) == (("https", "http"), True)


def test_mirrors_in_order_then_the_registry(tmp_path):
    """Mirrors are asked as they are listed, with their path before the repository."""
    text = """
    [registry."docker.io"]
    mirrors = ["https://mirror.example/hub", "http://localhost:5000"]
    """
    found = registries(tmp_path, text).endpoints("docker.io")
    assert [(one.host, one.schemes, one.prefix, one.mirror) for one in found] == [
        ("mirror.example", ("https",), "hub/", True),
        ("localhost:5000", ("http",), "", True),
        ("registry-1.docker.io", ("https",), "", False),
    ]
    assert len(registries(tmp_path, text).endpoints("ghcr.io")) == 1


def test_insecure_by_name_network_and_docker(tmp_path):
    """A registry is taken without a good certificate where ours or Docker's configuration says so."""
    text = '[registry."lab.example:5000"]\ninsecure = true\n[registry."strict.example"]\ninsecure = false\n'
    docker = {"insecure-registries": ["old.example", "10.1.0.0/16", "strict.example"]}
    found = registries(tmp_path, text, docker)
    for host in ("lab.example:5000", "old.example", "10.1.2.3:5000"):
        assert found.itself(host).schemes == ("https", "http")
        assert not found.itself(host).verify
    for host in ("lab.example", "strict.example", "10.2.0.1"):
        assert found.itself(host).schemes == ("https",)
        assert found.itself(host).verify


def test_docker_mirrors_are_the_hubs_and_ours_are_stronger(tmp_path):
    """daemon.json's registry-mirrors hold for docker.io unless registries.toml names others."""
    docker = {"registry-mirrors": ["https://docker.example"]}
    assert registries(tmp_path, "", docker).endpoints("docker.io")[0].host == "docker.example"
    ours = '[registry."docker.io"]\nmirrors = ["https://ours.example"]'
    assert registries(tmp_path, ours, docker).endpoints("docker.io")[0].host == "ours.example"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[registry", "can't be read"),
        ('[registry."x"]\nmirror = []', "no such key: mirror"),
        ('[registry."x"]\nmirrors = "https://a"', "not a list"),
        ('[registry."x"]\nmirrors = ["mirror.example"]', "not a URL"),
        ('[registry."x"]\nmirrors = ["http://["]', "not a URL"),
        ('[registry."x"]\nmirrors = ["http://a:99999"]', "not a URL"),
        (
            '[registry."x"]\nmirrors = ["https://u:p4ss@mirror.example"]',
            "only scheme, host and path",
        ),
        ('[registry."x"]\ninsecure = "yes"', "not true or false"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text, said):
    """A configuration that can't be understood is refused before anything is asked, without secrets."""
    with pytest.raises(SpecError, match=said) as caught:
        registries(tmp_path, text)
    assert "registries.toml" in str(caught.value)
    assert "p4ss" not in f"{caught.value} {caught.value.hint}"


# -- credentials ---------------------------------------------------------------------------------


def config(tmp_path: Path, value: object, name: str = "config.json") -> list[str]:
    path = tmp_path / name
    path.write_text(json.dumps(value))
    return [str(tmp_path / "none.json"), str(path)]


def encoded(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://quay.example", "quay.example"),
        ("https://quay.example/v2/", "quay.example"),
    ],
)
def test_auths_by_all_spellings(tmp_path, key, registry):
    """Docker's, Podman's and old spellings of a registry find its entry; a password may have colons."""
    found = credentials.find(
        registry, "a/b", paths=config(tmp_path, {"auths": {key: encoded("me:p:w")}})
    )
    assert found.credentials is not None
    assert (found.credentials.username, found.credentials.password) == ("me", "p:w")


def test_nobody_elses_credentials(tmp_path):
    """Another host, another port and a longer name find nothing."""
    paths = config(tmp_path, {"auths": {"quay.example:5000": encoded("me:pw")}})
    for registry in ("quay.example", "quay.example:443", "evil.quay.example:5000", "docker.io"):
        assert credentials.find(registry, "a", paths=paths).credentials is None


def test_a_namespace_is_stronger_than_its_registry(tmp_path):
    """Podman's keys with a path hold for what is under it."""
    auths = {"quay.example": encoded("all:1"), "quay.example/team": encoded("team:2")}
    paths = config(tmp_path, {"auths": auths})
    names = {
        repository: found.credentials.username
        for repository in ("team/x", "team", "teams/x", "x")
        if (found := credentials.find("quay.example", repository, paths=paths)).credentials
    }
    assert names == {"team/x": "team", "team": "team", "teams/x": "all", "x": "all"}


def test_identity_token_and_empty_entries(tmp_path):
    """An identity token is taken, and what ``docker login`` leaves for a helper is no credential."""
    auths = {"a.example": {"auth": "", "identitytoken": "t0ken"}, "b.example": {}}
    paths = config(tmp_path, {"auths": auths})
    found = credentials.find("a.example", "x", paths=paths).credentials
    assert found is not None
    assert found.identity_token == "t0ken"
    assert credentials.find("b.example", "x", paths=paths).credentials is None


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "docker-credential-lab"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_helpers(tmp_path, monkeypatch):
    """A helper is asked by Docker's protocol: for its host by credHelpers, for all by credsStore."""
    helper(
        tmp_path, monkeypatch,
        'read -r server; [ "$1" = get ] || exit 9\n'
        'if [ "$server" = none.example ]; then echo "credentials not found in native keychain"; exit 1; fi\n'
        'echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"for $server\\",\\"Secret\\":\\"pw\\"}"',
    )  # fmt: skip
    one = config(tmp_path, {"credHelpers": {"a.example": "lab"}})
    found = credentials.find("a.example", "x", paths=one).credentials
    assert found is not None
    assert (found.username, found.password) == ("for a.example", "pw")
    assert credentials.find("b.example", "x", paths=one) == credentials.Found()
    every = config(tmp_path, {"credsStore": "lab"})
    found = credentials.find("docker.io", "library/x", paths=every).credentials
    assert found is not None
    assert found.username == "for https://index.docker.io/v1/"
    assert credentials.find("none.example", "x", paths=every) == credentials.Found()


def test_a_helper_that_gives_a_token(tmp_path, monkeypatch):
    """The user name <token> means that the secret is an identity token."""
    helper(tmp_path, monkeypatch, 'echo \'{"Username": "<token>", "Secret": "t0ken"}\'')
    found = credentials.find("a.example", "x", paths=config(tmp_path, {"credsStore": "lab"}))
    assert found.credentials is not None
    assert found.credentials.identity_token == "t0ken"


def test_a_broken_helper_is_told_and_not_fatal(tmp_path, monkeypatch):
    """A helper that is missing or fails leaves us anonymous, with the reason kept for a refusal."""
    paths = config(tmp_path, {"credsStore": "nowhere"})
    assert "not on PATH" in credentials.find("a.example", "x", paths=paths).trouble
    helper(tmp_path, monkeypatch, "echo s3cret; exit 3")
    found = credentials.find("a.example", "x", paths=config(tmp_path, {"credsStore": "lab"}))
    assert found.credentials is None
    assert "ended with 3" in found.trouble
    assert "s3cret" not in found.trouble
    with pytest.raises(SpecError, match="not the name of a credential helper"):
        credentials.find("a", "x", paths=config(tmp_path, {"credsStore": "../../bin/sh"}))


def test_secrets_are_never_shown(tmp_path):
    """Neither repr nor the error about a damaged file has a secret in it."""
    shown = repr(credentials.Credentials("me", "s3cret", "t0ken", "file"))
    assert "s3cret" not in shown
    assert "t0ken" not in shown
    (tmp_path / "config.json").write_text('{"auths": {"a": {"auth": "s3cret')
    with pytest.raises(SpecError) as caught:
        credentials.find("a", "x", paths=[str(tmp_path / "config.json")])
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(SpecError) as caught:
        credentials.find("a", "x", paths=config(tmp_path, {"auths": {"a": {"auth": "s3cret!"}}}))
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


# -- platforms -----------------------------------------------------------------------------------


def index(*platforms: str) -> dict[str, object]:
    """An index with an image for each ``os/arch/variant``, numbered by their digests."""
    entries = []
    for number, text in enumerate(platforms):
        parts = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
        entry = {"mediaType": manifests.ACCEPT[2], "digest": f"sha256:{number:064}", "size": 1}
        entries.append(entry | ({"platform": parts} if text else {}))
    return {"schemaVersion": 2, "manifests": entries}


@pytest.mark.parametrize(
    ("wanted", "there", "number"),
    [
        ("linux/amd64", ["linux/arm64/v8", "linux/amd64"], 1),
        ("arm64", ["linux/amd64", "linux/arm64/v8"], 1),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/aarch64", ["linux/arm64/v8"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/amd64", ["windows/amd64", "unknown/unknown", "linux/amd64", "linux/amd64"], 2),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v3"], 1),
        ("linux/amd64/v2", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1"], 1),
        ("linux/amd64", [""], 0),
    ],
)
def test_the_right_image_of_an_index(wanted, there, number):
    """The best fit is taken: an older variant of arm, never a newer; attestations never."""
    chosen = manifests.choose(index(*there), "x", platform.parse(wanted), strict=True)
    assert chosen.digest == f"sha256:{number:064}"


def test_no_image_for_the_platform_names_those_there():
    """The error lists what there is."""
    with pytest.raises(
        RegistryError, match=r"no image for linux/s390x; it has linux/amd64, linux/arm/v7"
    ):
        manifests.choose(
            index("linux/amd64", "linux/arm/v7"), "x", platform.parse("s390x"), strict=True
        )


@pytest.mark.parametrize(
    "text", ["", "linux/", "windows/amd64", "linux/nonsense", "a/b/c/d", "linux/amd64;rm"]
)
def test_what_is_no_platform(text):
    """A platform that can't be run here, or is none, is refused at once."""
    with pytest.raises(SpecError):
        platform.parse(text)


# -- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "through"),
    [
        ("registry.example", True), ("inside.lab", False), ("deep.inside.lab", False),
        ("notinside.lab", True), ("10.9.8.7:5000", False), ("11.9.8.7", True),
        ("localhost:5000", False), ("127.0.0.1:1", False), ("[::1]:5000", False),
    ],
)  # fmt: skip
def test_no_proxy(monkeypatch, host, through):
    """NO_PROXY takes names with their subdomains and networks; loopback is never proxied."""
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.lab, 10.0.0.0/8")
    expected = "http://proxy.example:3128" if through else None
    assert transport.proxy_for("https", host) == expected


def test_the_network_is_imported_when_it_is_used():
    """Importing pull and push loads no HTTP library, for the engine imports their package."""
    code = (
        "import sys, nscontainer.images, nscontainer.image.registry.pull, "
        "nscontainer.image.registry.push; "
        "print(sorted({'urllib3', 'requests', 'zstandard', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("proxy", ["http://[x", "http://me:s3cret@p:99999", "a:b"])
def test_a_proxy_that_is_no_url(monkeypatch, proxy):
    """It is said, without the password that may be in it."""
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(SpecError, match="is no URL") as caught:
        transport.Transport().send("GET", "https://reg.example/v2/", headers={})
    assert "s3cret" not in str(caught.value)
