"""What the product's code must not do anywhere: unpickle, run text, listen on every interface (docs/safety.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("features", "pipeline", "training", "jobs")
FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "eval", "exec", "os.system", "torch.load", "torch.jit.load", "torch.hub.load", "yaml.load", "yaml.unsafe_load",
    "np.fromfile", "pd.read_pickle", "mlflow.pyfunc.load_model", "pyfunc.load_model",
}  # fmt: skip


def faults(code: str) -> Iterator[str]:
    """Everything in a module that could run what it reads, or be reached from elsewhere."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES or "pyfunc" in name)
        elif isinstance(node, ast.Call):
            yield from (called for called in [ast.unparse(node.func)] if called in FORBIDDEN_CALLS)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield from (f"{key}=True" for key in ("allow_pickle", "shell") if given.get(key, "False") != "False")
            yield from (f"weights_only={given['weights_only']}" for _ in [0] if given.get("weights_only") == "False")
        elif isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::"):
            yield f"listens on {node.value}"


@pytest.mark.parametrize("floor", FLOORS)
def test_the_code_unpickles_nothing_and_listens_nowhere(floor: str) -> None:
    modules = sorted((ROOT / floor).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): list(faults(path.read_text(encoding="utf-8"))) for path in modules}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from cloudpickle import loads", "import mlflow.pyfunc", "from joblib import load",
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)", "yaml.load(text)", "eval(text)", "subprocess.run(line, shell=True)",
        "HTTPServer(('0.0.0.0', 80), handler)",
    ],
)  # fmt: skip
def test_the_test_sees_it(code: str) -> None:
    assert list(faults(code))


def test_spark_on_one_machine_listens_on_loopback() -> None:
    lines = (ROOT / "conf" / "spark" / "local.conf").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    assert values["spark.driver.bindAddress"] == values["spark.driver.host"] == "127.0.0.1"
    assert values["spark.ui.enabled"] == "false"
