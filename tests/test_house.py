"""Rules of the house that a test can hold: who may import what, and how large things may grow."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("manifests", "pipeline", "stages", "mcdm")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def of(package: str) -> list[Path]:
    return [path for path in SOURCES if path.relative_to(ROOT).parts[0] == package]


def test_only_cluster_and_the_trainer_s_launcher_import_ray():
    importers = {
        str(path.relative_to(ROOT)) for path in SOURCES if any(n.split(".")[0] == "ray" for n in imported(path))
    }
    assert importers <= {"pipeline/cluster.py", "mcdm/ray_train.py"} and "pipeline/cluster.py" in importers


def test_manifests_import_none_of_the_other_packages():
    for path in of("manifests"):
        assert not {n for n in imported(path) if n.split(".")[0] in {"pipeline", "stages", "mcdm"}}, path


def test_stages_see_of_the_pipeline_only_the_stage_and_its_bench():
    allowed = {"pipeline.stage", "pipeline.bench"}
    for path in of("stages"):
        assert {n for n in imported(path) if n.split(".")[0] == "pipeline"} <= allowed, path
        assert not {n for n in imported(path) if n.split(".")[0] == "mcdm"}, path


def broad(handler: ast.ExceptHandler) -> bool:
    """Whether it takes everything, alone or among others, by whatever path it is named."""
    named = ast.walk(handler.type or ast.Name("BaseException"))
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in named}
    return not names.isdisjoint({"Exception", "BaseException"})


def handlers(text: str) -> list[ast.ExceptHandler]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ExceptHandler)]


def test_an_installed_package_has_the_files_that_its_code_reads():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {path for package, globs in told.items() for one in globs for path in (ROOT / package).glob(one)}
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    data = {path for path in files if path.suffix not in (".py", ".pyc") and path.name != "README.md"}
    assert {path.parent.name for path in data - shipped} == {"examples"}


def test_there_is_one_broad_except():
    found = [str(path.relative_to(ROOT)) for path in SOURCES for one in handlers(path.read_text()) if broad(one)]
    assert found == ["pipeline/step.py"]


@pytest.mark.parametrize("kind", ["", "Exception", "(OSError, Exception)", "builtins.BaseException"])
def test_an_except_is_broad_also_among_others(kind):
    assert [broad(one) for one in handlers(f"try: pass\nexcept {kind}: pass")] == [True]
    assert [broad(one) for one in handlers("try: pass\nexcept (OSError, pa.ArrowException): pass")] == [False]


@pytest.mark.parametrize(
    "path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_stay_under_400_lines_and_functions_under_60(path: Path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} at line {node.lineno}"
