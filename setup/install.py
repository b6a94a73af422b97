"""Sets up a checkout: `setup/install.py [--profile spark4|parity|airflow] [--extra completejourney]`, called by make.

1. is the stamp of an earlier run still true? then nothing is done (well under a second)
2. what the machine must have: every lack at once, one line each
3. the virtual environment
4. the lock, every file by hash, nothing resolved and nothing built in isolation
5. torch, whichever build (CPU or CUDA) pip's configuration gives, held to the versions of the lock
6. Horovod's wheel, from the cache or built (setup/horovod_wheel.py)
7. this project, editable, which brings the `limelight` command
8. a look whether all of it loads; then the stamp, last, so that what was cut off is taken up again

Standard library only, and any Python 3.8 or newer may run it: the environment itself is made with Python 3.11.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import horovod_wheel
import machine
from lock_file import lock_entries, pins
from machine import GIB, Interpreter, Space
from steps import Runner, SetupError, fail, say, timed

SETUP = Path(__file__).resolve().parent
ROOT = SETUP.parent
HOROVOD_LOCK = SETUP / "requirements-horovod.lock"
EXTRAS = ("completejourney",)
_BUILD_TOOLS = ("setuptools", "wheel")
_CUDA_VARIABLES = ("HOROVOD_GPU_OPERATIONS", "HOROVOD_GPU_ALLREDUCE", "HOROVOD_CUDA_HOME")


class Profile(NamedTuple):
    """One environment that set-up can make.

    Attributes:
        venv: folder name in the checkout.
        lock: its lock file in setup/.
        loads: modules that were compiled or unpacked, and are most likely to fail.
        has_torch: torch comes beside the lock.
        has_horovod: so that a compiler is needed.
        has_spark: so that Java is looked for.
    """

    name: str
    venv: str
    lock: str
    loads: str
    has_torch: bool = False
    has_horovod: bool = False
    has_spark: bool = False


_DATA_SIDE = "pyspark, pyarrow, xgboost"
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "default",
            ".venv",
            "requirements.lock",
            f"{_DATA_SIDE}, horovod.torch, petastorm, mlflow, onnxruntime",
            has_torch=True,
            has_horovod=True,
            has_spark=True,
        ),
        Profile("spark4", ".venv-spark4", "requirements-spark4.lock", _DATA_SIDE, has_spark=True),
        Profile(
            "parity",
            ".venv-parity",
            "requirements-parity.lock",
            "torch, pyarrow, deepctr_torch.models, fuxictr.pytorch, torch_rechub.models.multi_task",
            has_torch=True,
        ),
        Profile("airflow", ".venv-airflow", "requirements-airflow.lock", "airflow.sdk"),
    )
}


class Site:
    """The environment of one profile in one checkout: where things lie and what the stamp says of them."""

    def __init__(self, profile: Profile, root: Path = ROOT) -> None:
        self.profile = profile
        self.root = root
        self.venv = root / profile.venv
        self.python = self.venv / "bin" / "python"
        self.pip_install: list[str | Path] = [self.python, "-m", "pip", "install"]
        self.lock = SETUP / profile.lock
        self.stamp = self.venv / "limelight-setup.json"

    def stamped(self) -> dict[str, Any]:
        """What the last finished set-up wrote; empty when there was none."""
        try:
            stamp: dict[str, Any] = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp

    def write_stamp(self, content: Mapping[str, Any]) -> None:
        """Replaces the stamp in one step."""
        draft = self.stamp.with_suffix(".new")
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(self.stamp)

    def installed_version(self, package: str) -> str | None:
        """Version of an installed distribution, read from the name of its folder; None when it is not there."""
        found = list(self.venv.glob(f"lib/python*/site-packages/{package}-*.dist-info"))
        return found[0].name[len(package) + 1 : -len(".dist-info")] if found else None


def core_key(site: Site, options: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a finished set-up depends on; equal keys mean nothing to do."""
    digest = hashlib.sha256(project_table(site.root).encode())
    for path in [site.lock, HOROVOD_LOCK, *sorted(SETUP.glob("*.py"))]:
        digest.update(path.read_bytes())
    return {
        "checkout": str(site.root),
        "inputs": digest.hexdigest(),
        "options": dict(options),
        "torch": site.installed_version("torch") if site.profile.has_torch else None,
    }


def project_table(root: Path) -> str:
    """What pyproject.toml says of the project itself; the settings of lint and tests come after it."""
    return (root / "pyproject.toml").read_text(encoding="utf-8").partition("\n[tool.ruff]")[0]


def is_current(site: Site, options: Mapping[str, str]) -> bool:
    """Is the stamp true of this checkout, and does the environment's Python still run?"""
    if site.stamped().get("core") != core_key(site, options):
        return False
    return subprocess.call([str(site.python), "-I", "-S", "-c", ""], stderr=subprocess.DEVNULL) == 0


def chosen_options(site: Site, environ: Mapping[str, str]) -> dict[str, str]:
    """Horovod's build options: those of the environment, else those of the last set-up, else none."""
    given = horovod_wheel.options_given(environ)
    if given is None:
        given = site.stamped().get("core", {}).get("options", {})
    return dict(given)


def check_machine(site: Site, environ: Mapping[str, str]) -> Interpreter:
    """Raises SetupError with one line for each thing that the machine lacks."""
    python, lacks = machine.find_python(machine.python_candidates(environ))
    if site.profile.has_horovod:
        lacks += machine.check_compiler(environ) + machine.check_make()
    lacks += machine.check_folders(spaces(site, environ))
    if lacks or python is None:
        raise SetupError("\n".join(lacks))
    return python


def spaces(site: Site, environ: Mapping[str, str]) -> list[Space]:
    """Room that a set-up takes: measured on a CPU build, CUDA's libraries added where they are asked for."""
    is_made = site.python.exists()
    packages = 1 * GIB if is_made or not site.profile.has_torch else 4 * GIB
    if any(environ.get(name) for name in _CUDA_VARIABLES) and not is_made:
        packages += 10 * GIB
    needed = [
        Space(site.root, packages, "the environment"),
        Space(Path(tempfile.gettempdir()), 1 * GIB, "unpacking"),
    ]
    if site.profile.has_horovod:
        needed.append(Space(horovod_wheel.cache_root(environ), GIB // 2, "building Horovod"))
    return needed


def make_venv(site: Site, runner: Runner, python: Interpreter) -> None:
    """A virtual environment of Python 3.11; one that was cut off, moved or made by another Python is made anew."""
    if site.venv.exists():
        found = machine.probe(str(site.python))
        works = found is not None and found.version == machine.PYTHON_VERSION
        entry = site.venv / "bin" / "pip"
        belongs_here = entry.is_file() and str(site.venv) in entry.read_text(encoding="utf-8", errors="replace")
        if works and belongs_here:
            drop_half_installed(site)
            return
        say(f"{site.profile.venv} was cut off, moved or made by another Python; it is made anew")
        shutil.rmtree(site.venv)
    with timed(f"environment {site.profile.venv} with Python {python.full_version}"):
        runner.run([python.executable, "-m", "venv", site.venv])


def drop_half_installed(site: Site) -> None:
    """Forgets packages whose installation was killed: pip would take them as installed, and fail to replace them."""
    for info in site.venv.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "RECORD").is_file():
            shutil.rmtree(info)


def install_lock(site: Site, runner: Runner) -> None:
    """Installs the lock by hash; the build tools first, because what has no wheel is built with them."""
    entries = lock_entries(site.lock.read_text(encoding="utf-8"))
    pip = [*site.pip_install, "--no-deps", "--require-hashes"]
    tools = site.venv / "build-tools.lock"
    tools.write_text("".join(entries[name] for name in _BUILD_TOOLS), encoding="utf-8")
    with timed(f"{len(entries)} packages of setup/{site.lock.name}"):
        runner.run([*pip, "-r", tools])
        runner.run([*pip, "--no-build-isolation", "-r", site.lock])


def install_torch(site: Site, runner: Runner) -> str:
    """Installs torch with the companions that its build asks for, and gives its version with the build."""
    pin = re.search(r'"(torch==[^"]+)"', project_table(site.root))
    if pin is None:
        raise SetupError("pyproject.toml does not pin torch: restore the line `torch==...`.")
    entries = lock_entries(site.lock.read_text(encoding="utf-8"))
    constraints = site.venv / "constraints.txt"
    constraints.write_text("\n".join(pins(entries)), encoding="utf-8")
    with timed(pin.group(1)):
        runner.run([*site.pip_install, pin.group(1), "-c", constraints])
    version = site.installed_version("torch")
    if version is None:
        raise SetupError(f"pip installed no {pin.group(1)}. Log: {runner.log}")
    return version


def install_horovod(
    site: Site, runner: Runner, torch: str, chosen: Mapping[str, str], environ: Mapping[str, str]
) -> None:
    """Installs Horovod's wheel from the cache, which is filled first where it has none that loads here."""
    options = horovod_wheel.build_options(chosen)
    pin = horovod_wheel.read_pin(HOROVOD_LOCK)
    root = horovod_wheel.cache_root(environ)
    python_version = ".".join(map(str, machine.PYTHON_VERSION))
    folder = horovod_wheel.cache_folder(root, pin, torch=torch, python=python_version, options=options)
    pip = [*site.pip_install, "--no-deps", "--no-index", "--force-reinstall"]
    wheel = horovod_wheel.cached_wheel(folder)
    if wheel is not None:
        with timed(f"Horovod {pin.version} from {folder}"):
            runner.run([*pip, wheel])
        if loads_horovod(site):
            return
        horovod_wheel.forget(folder)
    with timed(f"Horovod {pin.version}, built for torch {torch} (about 3 minutes on 2 cores)"):
        build_environ = with_cuda_toolkit(site, environ)
        sdist = horovod_wheel.fetch_sdist(runner, site.python, HOROVOD_LOCK, root)
        wheel = horovod_wheel.build_wheel(runner, site.python, sdist, folder, options=options, environ=build_environ)
        runner.run([*pip, wheel])


def with_cuda_toolkit(site: Site, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the build; CUDA_HOME set where torch is a CUDA build, which needs a whole toolkit."""
    asked = subprocess.run(
        [str(site.python), "-c", "import torch; print(torch.version.cuda or '')"], stdout=subprocess.PIPE, text=True
    )
    cuda = asked.stdout.strip()
    if not cuda:
        return dict(environ)
    home = horovod_wheel.cuda_home(environ)
    if home is None:
        raise SetupError(
            f"the CUDA toolkit is missing: torch is a build for CUDA {cuda}, and Horovod compiles against it; "
            "set CUDA_HOME to a toolkit of that version (with bin/nvcc), or install a CPU build of torch first."
        )
    return {**environ, "CUDA_HOME": str(home)}


def loads_horovod(site: Site) -> bool:
    """Does the compiled part load and start here?"""
    code = "import horovod.torch as hvd; hvd.init(); assert hvd.size() == 1"
    return subprocess.call([str(site.python), "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def install_project(site: Site, runner: Runner) -> None:
    """This checkout, editable and offline: a new module or file needs no further set-up."""
    with timed("this project (editable)"):
        pip = [*site.pip_install, "--no-deps", "--no-index", "--no-build-isolation"]
        runner.run([*pip, "-e", site.root])


def check_result(site: Site, runner: Runner) -> None:
    """Loads what the profile names; says which Java Spark will run on."""
    with timed("a look whether it loads"):
        runner.run([site.python, "-c", f"import {site.profile.loads}"])
        if not site.profile.has_spark:
            return
        java = subprocess.run(
            [str(site.python), "-m", "pipeline.java_runtime"], cwd=site.root, capture_output=True, text=True
        )
    if java.returncode:
        raise SetupError(java.stderr.strip().splitlines()[-1])
    say(f"Spark will run on the Java of {java.stdout.strip()}")


def install_extra(site: Site, runner: Runner, extra: str) -> None:
    """One optional package with its own lock; what it depends on is in the main lock."""
    with timed(f"extra {extra}"):
        lock = SETUP / f"requirements-{extra}.lock"
        runner.run([*site.pip_install, "--no-deps", "--require-hashes", "-r", lock])


def set_up(site: Site, environ: Mapping[str, str]) -> None:
    """Runs every step. Raises SetupError at the first that fails."""
    options = chosen_options(site, environ)
    if is_current(site, options):
        return
    python = check_machine(site, environ)
    runner = Runner(site.root / "build" / "setup.log")
    make_venv(site, runner, python)
    site.write_stamp({"core": {"options": options}})  # not a finished set-up, but the choice outlives an interruption
    install_lock(site, runner)
    if site.profile.has_torch:
        torch = install_torch(site, runner)
        if site.profile.has_horovod:
            install_horovod(site, runner, torch, options, {**environ, **options})
    install_project(site, runner)
    check_result(site, runner)
    site.write_stamp({"core": core_key(site, options)})


def add_extra(site: Site, extra: str) -> None:
    """Installs one extra unless its stamp says that it is there."""
    wanted = hashlib.sha256((SETUP / f"requirements-{extra}.lock").read_bytes()).hexdigest()
    stamp = site.stamped()
    if stamp.get(extra) != wanted:
        install_extra(site, Runner(site.root / "build" / "setup.log"), extra)
        site.write_stamp({**stamp, extra: wanted})


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Two make targets started at once wait for each other instead of installing over each other."""
    (root / "build").mkdir(exist_ok=True)
    with (root / "build" / "setup.flock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when the environment is ready, 1 when something is missing, 130 when interrupted."""
    parser = argparse.ArgumentParser(description="Make the environment of this checkout, or see that it is there.")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="default")
    parser.add_argument("--extra", choices=EXTRAS, action="append", default=[])
    asked = parser.parse_args(arguments)
    site = Site(PROFILES[asked.profile])
    started = time.monotonic()
    try:
        with alone(site.root):
            set_up(site, os.environ)
            for extra in asked.extra:
                add_extra(site, extra)
    except SetupError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail(SetupError("interrupted; run the same make target again, it resumes.")) + 129
    say(f"{site.profile.venv} is ready ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
