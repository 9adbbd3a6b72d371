"""``nscontainer ipython enable`` in a real environment: kernels and IPython know the magics at once."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.notebook import kernel as kernels

pytestmark = [pytest.mark.notebook, pytest.mark.root]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has what this one has, but a prefix of its own."""
    where = tmp_path_factory.mktemp("environment")
    venv.create(where, symlinks=True)
    made = where / "bin" / "python"
    script = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.run([str(made), "-c", script], capture_output=True, text=True, check=True)
    lines = [sysconfig.get_paths()["purelib"], *filter(os.path.isdir, sys.path)]
    (Path(site.stdout.strip()) / "ours.pth").write_text("\n".join(lines) + "\n")
    return made


def call(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``nscontainer ipython`` of the environment."""
    command = [str(python), "-m", "nscontainer", "ipython", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_kernel_and_a_terminal(python: Path, engine: Path, tmp_path: Path) -> None:
    """Neither needs %load_ext; Tab knows the options after the first use; disable takes it away."""
    environment = {"IPYTHONDIR": str(tmp_path), "NSCONTAINER_STATE_DIR": str(engine)}
    cell = "%%container -q\nprint('in', 'a container')"
    done = call(python, "enable")
    assert done.returncode == 0, done.stderr
    assert str(python.parent.parent / "etc" / "ipython" / "ipython_config.json") in done.stdout
    with kernels.start(
        str(tmp_path),
        load=False,
        python=str(python),
        IPYTHONDIR=str(tmp_path),
        NSCONTAINER_STATE_DIR=str(engine),
    ) as kernel:
        ran = kernel.run(cell)
        assert ran.ok, ran.errors()
        assert ran.text() == "in a container\n"
        assert kernel.run("%container ps").ok
        assert "--memory" in kernel.complete("%%container --mem")
    terminal = [str(python), "-m", "IPython", "--simple-prompt", "--colors=NoColor", "-c"]
    script = f"get_ipython().run_cell({cell!r}).raise_error()"
    ran_too = subprocess.run(
        [*terminal, script], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert ran_too.stdout.endswith("in a container\n"), ran_too.stderr
    assert call(python, "disable").returncode == 0
    assert not (python.parent.parent / "etc").exists()
    gone = subprocess.run(
        [*terminal, script], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert "in a container" not in gone.stdout
