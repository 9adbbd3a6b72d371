"""What a result says: how it ended, its limits, its warnings, its output."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from nscontainer import spec
from nscontainer.measure import RunResult
from tests.unit import factories
from tests.unit.factories import MIB


def result(asked: Mapping[str, Any] | None = None, **changes: Any) -> RunResult:
    """A result with these limits and these changes to its record, on a host that is always the same."""
    limits = spec.limits(**(asked or {}))
    provenance = changes.pop("provenance", None) or factories.host()
    record = factories.record(asked=limits, **changes)
    return RunResult.from_record(record, b"", provenance=provenance)


def codes(run: RunResult) -> dict[str, str]:
    """The warnings' codes and their severities."""
    return {warning.code: warning.severity for warning in run.warnings}


# --- how it ended ---------------------------------------------------------------------------

KILLED = {"exit_code": 137, "signal": 9}
PEAK_256 = factories.reading({"memory.peak": 256 * MIB, "memory.oom_kill": 1})
NOT_FOUND = {"exit_code": 127, "exec_error": "command 'frob' not found in the container"}
NOT_EXECUTABLE = {
    "exit_code": 126,
    "exec_error": "command 'x' can't be executed: Permission denied",
}
FROB = spec.ContainerSpec(command=("frob", "-x")).to_dict()


@pytest.mark.parametrize(
    ("asked", "changes", "says"),
    [
        ({}, {}, "ok"),
        ({}, {"exit_code": 3}, "exit code 3"),
        ({}, {"exit_code": 139}, "exit code 139 (SIGSEGV)"),
        ({}, {"exit_code": 255}, "exit code 255"),
        ({}, {"exit_code": 139, "signal": 11}, "signal 11 (SIGSEGV)"),
        ({}, {"exit_code": 168, "signal": 40}, "signal 40"),
        ({}, {**NOT_FOUND, "spec": FROB}, "command not found: frob"),
        ({}, {"exit_code": 127}, "exit code 127"),
        ({}, NOT_EXECUTABLE, "command 'x' can't be executed: Permission denied"),
        (
            {"timeout": 2},
            {**KILLED, "killed_by": "timeout", "timed_out": "wall", "wall_ns": 2_000_000_000},
            "killed: timeout of 2 s",
        ),
        (
            {"cpu_time": 1},
            {**KILLED, "killed_by": "cpu-time", "timed_out": "cpu", "wall_ns": 5_000_000_000},
            "killed: CPU time of 1 s used up after 5 s",
        ),
        (
            {"memory": "256M"},
            {**KILLED, "oom_killed": True, "wall_ns": 1_200_000_000, "final": PEAK_256},
            "killed: out of memory at 256 MiB; peak 256.0 MiB after 1.2 s",
        ),
        (
            {},
            {**KILLED, "oom_killed": True, "final": PEAK_256},
            "killed: out of memory with no limit of its own; peak 256.0 MiB after 1 s",
        ),
        (
            {"memory": "256M"},
            {"exit_code": 1, "final": PEAK_256},
            "exit code 1; 1 process in it killed: out of memory at 256 MiB; peak 256.0 MiB",
        ),
        ({}, {**KILLED, "killed_by": "user"}, "killed: by its user after 1 s"),
        ({}, {**KILLED, "killed_by": "owner"}, "killed: the process that ran it ended after 1 s"),
        (
            {},
            {**KILLED, "killed_by": "interrupt", "interrupted": 2},
            "killed: interrupted twice after 1 s",
        ),
        ({}, {"exit_code": 130, "interrupted": 1}, "interrupted"),
        ({}, {"interrupted": 1}, "ok; interrupted"),
        ({}, {"exit_code": 130, "signal": 2, "interrupted": 1}, "signal 2 (SIGINT); interrupted"),
    ],
)
def test_describe_exit(asked, changes, says):
    """One line tells how a run ended, whatever ended it."""
    run = result(asked, **changes)
    assert run.describe_exit() == says
    assert run.ok is (run.exit_code == 0 and run.killed_by is None)


def test_an_interrupted_cell_that_linux_has_no_signal_for():
    """A killed run is not ok even where it left exit code 0."""
    assert not result(killed_by="user").ok


# --- limits ---------------------------------------------------------------------------------


def test_limits_that_were_kept():
    """Read back as asked: nothing is flagged, and both stand side by side."""
    run = result({"cpu": "20%", "memory": "256M", "pids_limit": 64, "timeout": "10s"})
    assert not run.limits.differs
    assert repr(run.limits).splitlines() == [
        "limit    asked    read back",
        "CPU      20 %     20 %",
        "memory   256 MiB  256 MiB",
        "pids     64       64",
        "timeout  10 s     -",
    ]


def test_limits_that_were_not_kept_are_flagged():
    """A limit that the cgroup doesn't hold is flagged and is an error among the warnings."""
    read_back = factories.read_back(spec.limits(cpu="20%")) | {"memory_bytes": 128 * MIB}
    run = result({"cpu": "20%", "memory": "256M"}, limits_read_back=read_back)
    assert "memory         256 MiB  128 MiB    <- differs" in repr(run.limits)
    assert codes(run)["limit-differs"] == "error"


def test_a_limit_that_nobody_asked_for_is_flagged():
    """Someone wrote the quota file: what was found in force shows."""
    run = result(limits_read_back=factories.read_back(spec.limits(cpu="20%")))
    (row,) = run.limits.rows()
    assert (row.asked, row.read_back, row.differs) == (None, "20 %", True)


def test_a_limit_that_can_not_be_read_back_is_not_reported_as_applied():
    """No reading is no proof."""
    run = result({"memory": "64M"}, limits_read_back=None)
    assert run.limits.differs
    assert codes(run)["limit-unread"] == "error"


def test_rounding_to_pages_is_no_difference():
    """Linux rounds a memory limit down to whole pages."""
    read_back = factories.read_back(spec.limits(memory=100_000_000))
    read_back |= {"memory_bytes": 99_999_744, "memory_swap_bytes": 99_999_744}
    assert not result({"memory": 100_000_000}, limits_read_back=read_back).limits.differs


def test_swap_that_was_to_be_none_but_is_not():
    """A memory limit alone means no swap: memory+swap read back as unlimited is a difference."""
    read_back = factories.read_back(spec.limits(memory="64M")) | {"memory_swap_bytes": -1}
    run = result({"memory": "64M"}, limits_read_back=read_back)
    assert [row.name for row in run.limits.rows() if row.differs] == ["memory_swap_bytes"]
    read_back |= {"memory_swap_bytes": None}  # this host does not account swap
    assert not result({"memory": "64M"}, limits_read_back=read_back).limits.differs
    asked = {"memory": "64M", "memory_swap": "128M"}
    assert result(asked, limits_read_back=read_back).limits.differs


def test_period_doubled_by_linux():
    """Quota and period doubled: the limit is the same, but the reader is told, and how often."""
    asked: dict[str, Any] = {"cpu": "20%", "cpu_period": 10_000}
    read_back = factories.read_back(spec.limits(**asked))
    read_back |= {"cpu_quota_us": 8_000, "cpu_period_us": 40_000}
    run = result(asked, limits_read_back=read_back)
    assert run.limits.period_doublings == 2
    assert codes(run)["period-doubled"] == "warning"
    assert "limit-differs" not in codes(run)
    assert "doubled the CPU period twice" in run.warnings[0].message


def test_shares_and_their_weight():
    """v1 gives shares back, v2 the weight that stands for them."""
    v1 = factories.read_back(spec.limits(cpu_shares=512))
    assert not result({"cpu_shares": 512}, limits_read_back=v1).limits.differs
    v2 = v1 | {"cpu_shares": None, "cpu_weight": 59}
    good = result({"cpu_shares": 512}, limits_read_back=v2)
    assert not good.limits.differs, repr(good.limits)
    bad = result({"cpu_shares": 512}, limits_read_back=v2 | {"cpu_weight": 100})
    assert bad.limits.differs


def test_cpusets_are_compared_as_sets():
    """0,1 and 0-1 are the same CPUs."""
    read_back = factories.read_back(spec.limits(cpuset_cpus="0-1"))
    assert not result({"cpuset_cpus": "0,1"}, limits_read_back=read_back).limits.differs
    assert result({"cpuset_cpus": "1"}, limits_read_back=read_back).limits.differs


def change(elapsed_s: float, **options: Any) -> dict[str, Any]:
    """An update as the monitor records it: the changed fields only."""
    limits = spec.limits(**options)
    fields = {k: v for k, v in dataclasses.asdict(limits).items() if v not in (None, ())}
    return {
        "elapsed_ns": round(elapsed_s * 1e9),
        "asked": fields,
        "read_back": factories.read_back(limits),
    }


def test_limits_changed_on_the_way():
    """The last ones asked are what the reading is held against; each change is kept."""
    run = result(
        {"memory": "256M"},
        limit_changes=[change(2.5, cpu="20%"), change(4, cpu="max")],
        limits_read_back=factories.read_back(spec.limits(memory="256M")),
    )
    assert [c.elapsed_s for c in run.limits.changes] == [2.5, 4]
    assert run.limits.in_force.memory_bytes == 256 * MIB
    assert run.limits.in_force.cpus is None
    assert not run.limits.differs
    assert repr(run.limits).splitlines()[-2:] == [
        "from 2.5 s on: CPU 20 %",
        "from 4 s on: CPU no limit",
    ]
    assert run.limits.longest_period_s == 0.1


def test_no_limits():
    """Nothing asked, nothing found."""
    run = result()
    assert repr(run.limits) == "no limits"
    assert run.limits.longest_period_s is None


# --- warnings -------------------------------------------------------------------------------


def test_a_quiet_run_warns_of_nothing():
    """No limits, little steal, no swap: nothing to say."""
    assert result().warnings == ()


def test_throttled():
    """Throttled in most periods: information, for that is what a quota does."""
    run = factories.run(5, quota=0.2)
    warning = next(w for w in run.warnings if w.code == "throttled")
    assert warning.severity == "info"
    assert warning.figures == {"share": 1.0, "nr_throttled": 50, "nr_periods": 50, "cpus": 0.2}
    few = factories.reading({"cpu.nr_periods": 100, "cpu.nr_throttled": 5})
    assert "throttled" not in codes(result({"cpu": 1}, final=few))


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({"steal_ns": 90_000_000}, "steal", "warning"),
        ({"steal_ns": 30_000_000}, None, None),  # under 2 % of 2 CPU-seconds
        ({"steal_ns": 10_000_000, "wall_ns": 1_000_000}, None, None),  # one tick of 10 ms
        ({"parents_quota": 0.5}, "parent-quota", "warning"),
        ({"oom_killed": True, **KILLED}, "oom-kill", "error"),
        ({"final": PEAK_256}, "oom-kill", "error"),
        ({"final": factories.reading({"memory.failcnt": 3})}, "memory-at-limit", "warning"),
        ({"missed_samples": 7}, "missed-samples", "warning"),
        ({"provenance": factories.host(swap_used_bytes=MIB)}, "host-swap", "info"),
    ],
)
def test_warnings_of_the_host_and_the_kernel(changes, code, severity):
    """Each rule, by itself, gives its warning and no other."""
    assert codes(result(**changes)) == ({code: severity} if code else {})


def test_parents_quota_that_does_not_matter():
    """A parent's quota over the run's own holds nothing back."""
    final = factories.reading({"cpu.nr_periods": 50})
    kept = result({"cpu": "20%"}, parents_quota=0.5, final=final)
    assert "parent-quota" not in codes(kept)
    assert "parent-quota" in codes(result({"cpu": "20%"}, parents_quota=0.1, final=final))


def test_short_run():
    """Fewer than 20 periods: the quota can't be judged."""
    run = factories.run(1.5, quota=0.2)
    assert codes(run)["short-run"] == "warning"
    assert next(w for w in run.warnings if w.code == "short-run").figures["nr_periods"] == 15
    assert "short-run" not in codes(factories.run(3, quota=0.2))


def test_more_than_the_quota():
    """More CPU than asked for is not passed over; the one period's start that Linux gives is no more."""
    had = {"cpuacct.usage": 1_100_000_000, "cpu.nr_periods": 50}
    run = result({"cpu": "20%"}, wall_ns=5_000_000_000, final=factories.reading(had))
    assert codes(run)["quota-overrun"] == "warning"
    started = {"cpuacct.usage": 622_000_000, "cpu.nr_periods": 30}  # measured on Linux 6.18
    run = result({"cpu": "20%"}, wall_ns=3_000_000_000, final=factories.reading(started))
    assert "quota-overrun" not in codes(run)


def test_memory_of_the_zygote():
    """Only where a memory limit makes it matter."""
    assert codes(result({"memory": "64M"}, start_mode="zygote"))["zygote-memory"] == "info"
    assert "zygote-memory" not in codes(result({"memory": "64M"}, start_mode="cold"))
    assert result(start_mode="zygote").warnings == ()


def test_swap_that_is_not_limited():
    """A memory limit, swap in use, and nothing that limits it: the memory limit is not hard."""
    read_back = factories.read_back(spec.limits(memory="64M")) | {"memory_swap_bytes": None}
    swap = factories.host(swap_used_bytes=MIB, swap_total_bytes=64 * MIB)
    run = result({"memory": "64M"}, limits_read_back=read_back, provenance=swap)
    assert codes(run)["host-swap"] == "warning"


def test_isolation_that_is_not_there():
    """A namespace that the host lacks, the host's network, and each note are told."""
    isolation = {
        "namespaces": {"mnt": "private", "time": "unavailable", "net": "host"},
        "network": "host",
        "notes": ["no idmapped mounts"],
    }
    run = result(isolation=isolation)
    assert codes(run) == {"not-isolated": "warning", "network-host": "info", "isolation": "info"}
    assert "time" in run.warnings[0].message
    assert "namespaces unavailable  time" in repr(run.isolation)
    assert run.isolation.seccomp is None  # not said, so not claimed
    assert run.isolation.capabilities is None
    assert "capabilities            unknown" in repr(run.isolation)


def test_the_gravest_comes_first():
    """Errors before warnings before information."""
    run = result({"memory": "64M"}, start_mode="zygote", missed_samples=9, oom_killed=True)
    assert [w.severity for w in run.warnings] == ["error", "warning", "info"]
    assert len({hash(w) for w in run.warnings}) == 3


# --- output ---------------------------------------------------------------------------------


def test_output_is_text_and_kept_as_bytes():
    """What is no UTF-8 is replaced in the text and still there in the bytes."""
    run = RunResult.from_record(factories.record(), b"", stdout=b"gr\xfcn", stderr="ü".encode())
    assert run.stdout == "gr�n"
    assert run.stdout_bytes == b"gr\xfcn"
    assert run.stderr == "ü"


def test_messages_become_notebook_outputs():
    """Streams are joined, displays updated in place, clear_output obeyed, the rest left out."""
    messages = [
        ("stream", {"name": "stdout", "text": "gone\n"}),
        ("clear_output", {"wait": True}),
        ("stream", {"name": "stdout", "text": "a"}),
        ("stream", {"name": "stdout", "text": "b\n"}),
        ("stream", {"name": "stderr", "text": "e"}),
        (
            "display_data",
            {"data": {"text/plain": "0"}, "metadata": {}, "transient": {"display_id": "x"}},
        ),
        ("update_display_data", {"data": {"text/plain": "1"}, "transient": {"display_id": "x"}}),
        ("execute_result", {"data": {"text/plain": "42"}, "metadata": {}, "execution_count": 3}),
        ("error", {"ename": "E", "evalue": "v", "traceback": ["t"]}),
        ("execute_reply", {"status": "error"}),
    ]
    run = RunResult.from_record(
        factories.record(),
        b"",
        outputs=[{"msg_type": kind, "content": content} for kind, content in messages],
        code="1",
        stdout=b"from a subprocess\n",
    )
    assert run.outputs == (
        {"output_type": "stream", "name": "stdout", "text": "ab\n"},
        {"output_type": "stream", "name": "stderr", "text": "e"},
        {"output_type": "display_data", "data": {"text/plain": "1"}, "metadata": {}},
        {
            "output_type": "execute_result",
            "data": {"text/plain": "42"},
            "metadata": {},
            "execution_count": 3,
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
    )
    assert run.stdout == "ab\nfrom a subprocess\n"
    assert run.stderr == "e"
    again = RunResult.from_record(factories.record(), b"", outputs=run.outputs)
    assert again.outputs == run.outputs


def test_it_can_be_run_again():
    """The spec comes back as the value that makes the same container."""
    asked = spec.build(
        ["sleep", "1"], cpu="20%", ulimits=["nofile=10"], env={"A": "b"}, stop_signal="INT"
    )
    run = result(spec=asked.to_dict())
    assert run.spec == asked
    assert run.spec.stop_signal == signal.SIGINT
