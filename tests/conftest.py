"""What all tests share: requirements of the machine, and the check that nothing is left on it.

A test says by marker what it requires (``tests/host.py`` finds out by doing); where that is
lacking it is skipped with the reason. ``NSCONTAINER_REQUIRE="root cgroup1"`` names what must be
there: then the test, and the session, fails instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nscontainer.engine import spawner_client
from tests import host, leaks

REQUIRED = os.environ.get("NSCONTAINER_REQUIRE", "").split()


def pytest_configure() -> None:
    """Refuse a requirement that there is no probe for: it would be a hole."""
    if unknown := set(REQUIRED) - set(host.PROBES):
        message = f"NSCONTAINER_REQUIRE: no such requirement: {' '.join(sorted(unknown))}"
        raise pytest.UsageError(message)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test, or fail it, where the machine lacks what it requires."""
    for requirement in host.PROBES:
        if item.get_closest_marker(requirement) and (reason := host.lacking(requirement)):
            message = f"requires {requirement}: {reason}"
            if requirement in REQUIRED:
                pytest.fail(message, pytrace=False)
            pytest.skip(message)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session where a requirement is lacking, even if no test asked for it."""
    if session.exitstatus == pytest.ExitCode.OK and any(map(host.lacking, REQUIRED)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which requirements are lacking."""
    for requirement in REQUIRED:
        if reason := host.lacking(requirement):
            line = f"NSCONTAINER_REQUIRE: no {requirement}: {reason}"
            terminalreporter.write_line(line, red=True)


@pytest.fixture(scope="session", autouse=True)
def kept_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sweeps of tests, and of the processes they start, are kept away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSCONTAINER_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No cgroup, mount, file or interface has come and stayed when all tests are through."""
    before = leaks.look()
    yield
    spawner_client.shutdown()  # with it goes what stands by for a next container
    if left := leaks.since(before):
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
