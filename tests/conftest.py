"""What the tests stand on: strict promotion, eight devices, standard errors."""

import functools
import gc
import itertools
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version

# Most of the suite's time is compiling small programs: LLVM's passes are not worth it.
# Set before JAX reads it. CI runs those marked `default_flags` as users compile them.
if not os.environ.get("AEVB_TEST_DEFAULT_FLAGS"):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_backend_optimization_level=0"
        + " --xla_llvm_disable_expensive_passes=true"
        + " --xla_cpu_parallel_codegen_split_count=1"  # the workers fill the cores
    )
    # Half of the time again. Newer versions do not have it, and abort at its name.
    if version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir

# A context of MLIR takes as long to make and to free as a small program to lower: a
# tenth of the suite's time. One serves many, as only JAX's own modules go in. It keeps
# their constants, so it does not serve all.
_PROGRAMS_A_CONTEXT = 200
_make_context = mlir.make_ir_context
_context = functools.lru_cache(maxsize=1)(lambda _: _make_context())
_number = itertools.count()
mlir.make_ir_context = lambda: _context(next(_number) // _PROGRAMS_A_CONTEXT)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


# Of half a minute and more; first those whose tests are long.
_LONGEST = (
    "test_paper.py", "test_processes.py", "test_reconstruct.py", "test_sweep.py",
    "test_resume.py", "test_config.py", "test_weights.py", "test_posteriors.py",
    "test_docs.py", "test_programs.py", "test_parallel.py", "test_run.py",
    "test_precision.py", "test_imputation.py", "test_marginal_likelihood.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """With --dist=loadfile the workers take the files as they are ordered below."""
    config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """Collects garbage less often, and none of what was imported: 6 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that the workers end together."""
    order = {name: index for index, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Whole programs are compiled once, by the first worker that needs them."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    settings = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield str(folder / "compiled")
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def float64() -> Iterator[None]:
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """Lifts strict promotion, for other libraries: optax.adam, numpyro, haiku."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def z_score() -> Callable[..., np.ndarray]:
    """The distance of a mean of independent draws from the truth, in standard errors.

    |z| < 4.9 is the two-sided test with a false alarm in a million; z < -4.9 shows a
    mean to be below.
    """

    def z_score(draws: jax.Array, truth: jax.Array | float) -> np.ndarray:
        draws = np.asarray(draws, np.float64)
        std_error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
        return (draws.mean(axis=0) - np.asarray(truth, np.float64)) / std_error

    return z_score


@pytest.fixture(scope="session")
def stop_after() -> Callable[[int], object]:
    """A `StopRequest` that says so once it has been asked so many times."""
    from experiments.processes.interruption import StopRequest

    class StopAfter(StopRequest):
        def __init__(self, count: int) -> None:
            self._count = count
            super().__init__()

        @property
        def requested(self) -> bool:
            self._count -= 1
            return self._count < 0

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    return StopAfter


@pytest.fixture
def assert_same_table() -> Callable[[list[dict], list[dict]], None]:
    """Rows of a sweep: numbers to 1e-4 relative (other shapes of products), else equal.

    Seconds are left out.
    """

    def assert_same_table(rows: list[dict], expected: list[dict]) -> None:
        for row, other in zip(rows, expected, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() - {"seconds", "images_per_second"}:
                value = other[name]
                if isinstance(value, float):
                    value = pytest.approx(value, rel=1e-4)
                assert row[name] == value, name

    return assert_same_table
