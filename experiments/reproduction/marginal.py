"""Figure 3: log p(x) along training, by Appendix D's estimator and by quadrature.

None of the three methods is given a better start than the others: the chains of every
datapoint begin at draws of the prior, chosen by their importance weights, and not at an
encoder, which MCEM does not have. The posteriors are narrow and have several modes: of
200 draws, those of a tenth of the points missed the one that counts, by up to 110 nats.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.evaluation.kinds import Estimator, Kind
from experiments.evaluation.points import (
    Measured,
    Progress,
    point_evaluator,
    points_identity,
)
from experiments.keys import Stream, stream_key
from experiments.processes.interruption import StopRequest
from experiments.program import build
from experiments.reproduction.protocol import Panel
from experiments.reproduction.training import Curve
from experiments.storage.atomic import read_json, write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.parts import Parts
from experiments.storage.workdir import read_config, same_work
from experiments.training.loop import start
from experiments.training.opened import load_run

__all__ = ["APPENDIX_D", "Marginal", "appendix_d", "find_marginals", "measure_panel"]

APPENDIX_D = Kind(
    name="appendix_d",
    label=lambda _: "Appendix D, kernel density",
    stream=Stream.APPENDIX_D,
    meaning="upper",
)
# Appendix E: the first 1000 points of either split, 50 posterior values that fit the
# density and 50 new ones for the sum, HMC with 4 leapfrog steps.
_NUM_POINTS = 1000
_NUM_CHAINS, _NUM_DRAWS, _NUM_LEAPFROG = 4, 25, 4
_NUM_BURN_IN, _THINNING = 30, 1
# The same for all datapoints, so that each is decoded once for many of them.
_NUM_PRIOR_DRAWS, _CHUNK = 2**15, 2**11
_BATCH_SIZE = 100
# Of which quadrature has the truth; the rest follows by regression on Appendix D.
_NUM_QUADRATURE = 50
_GRID, _COARSE_GRID, _NUM_MODES = 31, 15, 8
# Importance samples of each of the proposal's parts, and how much wider they are.
_NUM_IMPORTANCE, _WIDER = 100, 1.3
# Nats between Appendix D and importance sampling: the first has failed.
_FAILED = 20.0


class Marginal(NamedTuple):
    """Estimates of log p(x) of one split by the parameters of one step; nats.

    Attributes:
      method: one of `protocol.LABELS`.
      split: train or test.
      samples: training samples evaluated before.
      num_points: datapoints of the split.
      value: the mean of Appendix D's estimates, but for those that failed.
      std_error: of it, over datapoints.
      num_failed: datapoints whose two halves of draws lie in different modes: 20 nats
        or more from importance sampling.
      importance: the mean of importance sampling from normals around the same chains.
      truth: the mean over the same datapoints by quadrature; None where it was not
        computed.
      truth_std_error: of not having the quadrature of all of them.
      acceptance: the mean of the chains'.
      r_hat: the 95th percentile over datapoints.
      seconds: that the estimates took.
    """

    method: str
    split: str
    samples: int
    num_points: int
    value: float
    std_error: float
    num_failed: int
    importance: float
    truth: float | None
    truth_std_error: float | None
    acceptance: float
    r_hat: float
    seconds: float


def appendix_d(model: aevb.Model, latent_dim: int, *, with_truth: bool) -> Estimator:
    """Appendix D's estimator of log p(x) with the constants of Appendix E.

    Args:
      model: whose decoder and prior are used; no encoder is.
      latent_dim: J, at most 3 with the truth.
      with_truth: integrate on grids as well. Chains of their own look for modes, and a
        coarse grid around each finds the best; a fine grid lies around the mean and
        covariance that it gives, and once more around those that this one gives. A
        posterior of several modes that count has more than the one.
    """

    def starts(params: Any) -> jax.Array:
        p = aevb.prior_or_normal(model.prior(params), jnp.zeros(latent_dim))
        keys = jax.random.split(stream_key(Stream.CHAIN_STARTS), _NUM_PRIOR_DRAWS)
        return jax.vmap(p.sample)(keys)

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        decode, prior = partial(model.decode, params), model.prior(params)
        choice_key, draw_key, again_key, truth_key, key = jax.random.split(key, 5)
        zs = starts(params)
        log_weights = jax.lax.map(
            lambda z: decode(z).log_prob(x),
            zs,
            batch_size=min(_CHUNK, _NUM_PRIOR_DRAWS),
        )

        def sample(key: jax.Array, chosen: jax.Array) -> aevb.PosteriorDraws:
            return aevb.sample_posterior(
                decode,
                key,
                x,
                zs[chosen],
                prior=prior,
                num_samples=_NUM_DRAWS,
                num_burn_in=_NUM_BURN_IN,
                num_leapfrog_steps=_NUM_LEAPFROG,
                thinning=_THINNING,
                target_acceptance=0.9,
            )

        chosen = jax.random.categorical(choice_key, log_weights, shape=(_NUM_CHAINS,))
        draws = sample(draw_key, chosen)
        kernels = aevb.reciprocal_log_likelihood(
            decode, x, draws.zs, prior=prior, fit=aevb.fit_kernel_density
        )
        found = {
            **kernels._asdict(),
            "acceptance": jnp.mean(draws.acceptance),
            "r_hat": jnp.max(draws.r_hat),
            "importance": _importance(decode, key, x, draws.zs, prior),
        }
        if with_truth:
            # By their weights too, but no draw twice: other modes are looked at.
            noise = jax.random.gumbel(again_key, log_weights.shape)
            _, chosen = jax.lax.top_k(log_weights + noise, _NUM_MODES)
            others = sample(truth_key, chosen)
            found |= _integrals(decode, x, others.zs, prior)
        return found

    batch_size = 1 if with_truth else _BATCH_SIZE
    return Estimator(APPENDIX_D, _settings(with_truth), function, batch_size)


def _settings(with_truth: bool) -> dict[str, Any]:
    """What the estimates depend on."""
    return {
        "num_chains": _NUM_CHAINS,
        "num_samples": _NUM_DRAWS,
        "num_burn_in": _NUM_BURN_IN,
        "num_leapfrog_steps": _NUM_LEAPFROG,
        "thinning": _THINNING,
        "num_prior_draws": _NUM_PRIOR_DRAWS,
        "importance": [_NUM_IMPORTANCE, _WIDER],
        "grid": [_COARSE_GRID, _GRID, _NUM_MODES] if with_truth else [],
    }


def _importance(
    decode: Any, key: jax.Array, x: jax.Array, zs: jax.Array, prior: Any
) -> jax.Array:
    """Importance sampling from normals around the chains, and from the prior.

    A lower bound of log p(x) in expectation, and in a few dimensions a close one. It
    is not too high, as Appendix D's estimate is where half of the draws lie in another
    mode than the other half.

    Args:
      decode: z `[J]` -> p(x|z).
      key: consumed.
      x: `[D]` one datapoint.
      zs: `[C, L, J]` draws of p(z|x), of C chains.
      prior: p(z), or None.
    """
    latent_dim = zs.shape[-1]
    p = aevb.prior_or_normal(prior, jnp.zeros(latent_dim))

    def around(own: jax.Array) -> aevb.MultivariateNormal:
        # Wider than the draws are; a chain that did not move has no width of its own.
        covariance = _WIDER**2 * jnp.cov(own.T) + 1e-8 * jnp.eye(latent_dim)
        return aevb.MultivariateNormal(
            own.mean(axis=0), jnp.linalg.cholesky(covariance)
        )

    normals = jax.vmap(around)(zs)
    keys = jax.random.split(key, (len(zs) + 1, _NUM_IMPORTANCE))
    draws = jax.vmap(lambda q, keys: jax.vmap(q.sample)(keys))(normals, keys[1:])
    draws = jnp.concatenate([draws, jax.vmap(p.sample)(keys[0])[None]])

    def log_weight(z: jax.Array) -> jax.Array:
        each = jax.vmap(lambda q: q.log_prob(z))(normals)
        each = jnp.append(each, p.log_prob(z))
        log_q = jax.scipy.special.logsumexp(each) - jnp.log(len(each))
        return aevb.log_joint(decode, z, x, prior=prior) - log_q

    log_weights = jax.vmap(log_weight)(draws.reshape(-1, latent_dim))
    return jax.scipy.special.logsumexp(log_weights) - jnp.log(len(log_weights))


def _integrals(
    decode: Any, x: jax.Array, zs: jax.Array, prior: Any
) -> dict[str, jax.Array]:
    """Quadrature around the best of several chains; zs `[C, L, J]`."""
    latent_dim = zs.shape[-1]

    def integrate(num_points: int, loc: jax.Array, scale_tril: jax.Array) -> Any:
        return aevb.quadrature(
            decode,
            x,
            latent_dim=latent_dim,
            num_points=num_points,
            prior=prior,
            loc=loc,
            scale_tril=scale_tril,
        )

    def around(own: jax.Array) -> Any:
        fitted = aevb.fit_normal(own)
        return integrate(_COARSE_GRID, fitted.loc, fitted.scale_tril)

    def again(coarse: Any) -> Any:
        return integrate(_GRID, coarse.mean, jnp.linalg.cholesky(coarse.covariance))

    coarse = jax.lax.map(around, zs)
    best = jnp.nanargmax(coarse.log_likelihood)
    first = again(jax.tree.map(lambda leaf: leaf[best], coarse))
    return {"first": first.log_likelihood, "truth": again(first).log_likelihood}


def measure_panel(
    panel: Panel,
    curves: list[Curve],
    workdir: Path,
    stop: StopRequest,
    report: Callable[[Progress], None],
) -> None:
    """Estimates log p(x) for every kept checkpoint of a panel's runs; continues.

    Args:
      panel: of Fig. 3.
      curves: its runs.
      workdir: of the whole; finished points are kept in its folder `marginal`.
      stop: asked after every batch of points.
      report: called after every batch of points.

    Raises:
      StoppedError: a signal came, and what was done is saved.
    """
    if find_marginals(panel, workdir):
        return
    finished = [curve for curve in curves if curve.status == "done"]
    found: list[Marginal] = []
    if finished:
        measure = _measurer(panel, finished[0], workdir, stop, report)
        found = [one for curve in finished for one in measure(curve)]
    made = [one._asdict() for one in found]
    write_json(_file(panel, workdir), {"of": _identity(panel), "estimates": made})


def find_marginals(panel: Panel, workdir: Path) -> list[Marginal]:
    """The estimates of a panel, if they are all there."""
    path = _file(panel, workdir)
    kept = read_json(path) if path.exists() else {}
    if kept.get("of") != _identity(panel):
        return []
    return [Marginal(**one) for one in kept["estimates"]]


def _identity(panel: Panel) -> dict[str, Any]:
    """Of what the estimates are, and by which estimator."""
    asked = {"num_points": _NUM_POINTS, "num_quadrature": _NUM_QUADRATURE}
    return same_work(panel.config.to_dict()) | asked | _settings(True)


def _file(panel: Panel, workdir: Path) -> Path:
    return workdir / "marginal" / f"{panel.name}.json"


def _measurer(
    panel: Panel,
    first: Curve,
    workdir: Path,
    stop: StopRequest,
    report: Callable[[Progress], None],
) -> Callable[[Curve], list[Marginal]]:
    """Returns `measure(curve)`, of its kept checkpoints; compiled once for all runs."""
    path = panel.config.data.path
    opened = load_run(first.folder, data_path=path)
    program, latent_dim = opened.program, panel.config.latent_dim
    images = {
        split: np.asarray(getattr(program, split)[:_NUM_POINTS])
        for split in ("train", "test")
    }
    kinds = [
        appendix_d(program.likelihood_model, latent_dim, with_truth=with_truth)
        for with_truth in (False, True)
    ]
    evaluators = [point_evaluator(one, program.to_input) for one in kinds]

    def measure(curve: Curve) -> list[Marginal]:
        config = read_config(curve.folder, data_path=path)
        like = jax.eval_shape(partial(start, config, build(config, opened.dataset)))
        checkpoints = Checkpoints(curve.folder)
        steps = checkpoints.steps()
        found = []
        for step in steps:
            params = checkpoints.read(like, step).state.params
            identity = points_identity(config, params, opened.dataset.sha256)
            # Of all methods the same program: no encoder has a part in it.
            own = {name: leaf for name, leaf in params.items() if name != "encoder"}
            for split, shown in images.items():
                # Quadrature, of a few points, at the end alone.
                counts = [len(shown)]
                if step == steps[-1]:
                    counts.append(min(_NUM_QUADRATURE, len(shown)))
                measured = []
                for count, kind, evaluate in zip(
                    counts, kinds, evaluators, strict=False
                ):
                    name = f"{curve.method}-{curve.seed}-{step}-{split}-{count}.jsonl"
                    parts = Parts(
                        workdir / "marginal" / panel.name / name,
                        identity | kind.settings,
                    )
                    indices = np.arange(count)
                    measured.append(
                        evaluate(
                            own, shown, indices, parts=parts, stop=stop, report=report
                        )
                    )
                samples = step * config.batch_size
                found.append(_summary(curve.method, split, samples, *measured))
        return found

    return measure


def _summary(
    method: str,
    split: str,
    samples: int,
    points: Measured,
    truth: Measured | None = None,
) -> Marginal:
    estimates, proxies = points.values["log_likelihood"], points.values["importance"]
    good = np.abs(estimates - proxies) < _FAILED
    values = estimates[good] if good.sum() > 1 else estimates
    whole = None
    if truth is not None:
        # The same points by both: quadrature of a few, and the cheap estimate of all.
        count = len(truth.indices)
        whole = aevb.sampled_mean(
            jnp.asarray(truth.values["truth"]),
            jnp.asarray(proxies[:count]),
            jnp.asarray(proxies),
        )
    return Marginal(
        method,
        split,
        samples,
        len(estimates),
        float(np.mean(values)),
        float(np.std(values, ddof=1) / np.sqrt(len(values))),
        len(estimates) - len(values),
        float(np.mean(proxies)),
        None if whole is None else float(whole.mean),
        None if whole is None else float(whole.std_error),
        float(np.mean(points.values["acceptance"])),
        float(np.quantile(points.values["r_hat"], 0.95)),
        points.seconds + (0.0 if truth is None else truth.seconds),
    )
