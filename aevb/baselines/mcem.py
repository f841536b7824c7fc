"""Monte Carlo EM with Hamiltonian Monte Carlo (Appendix E): the baseline of Fig. 3.

It has no encoder: every datapoint keeps a Markov chain of its posterior p(z|x), which
moves a little in every E-step. The chains are part of the state, arrays as everything
else there: they are saved, resumed and vmapped with it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aevb.calls import check_count
from aevb.estimators import log_joint
from aevb.marginal.hmc import hmc_step, point_at
from aevb.objectives import dataset_bound, global_indices
from aevb.train import gradient_algorithm
from aevb.types import Algorithm, Info, Likelihood, Posterior, PyTree, State

__all__ = ["MCEMState", "e_step", "mcem"]


class MCEMState(NamedTuple):
    """What MCEM carries beside the parameters: the `opt_state` of its `State`.

    Attributes:
      optimizer: the optax state of the weight updates.
      chains: `[N, J]` the position of each datapoint's chain, or a pytree with such a
        leading axis.
      log_step_size: `[]` of the leapfrog integrator, one for all chains.
    """

    optimizer: PyTree
    chains: PyTree
    log_step_size: jax.Array


def e_step(
    decode: Callable[[jax.Array], Likelihood],
    key: jax.Array,
    x: jax.Array,
    z: PyTree,
    step_size: jax.Array | float,
    *,
    prior: Posterior | None = None,
    num_leapfrog_steps: int = 10,
) -> tuple[PyTree, jax.Array]:
    """Moves the chain of one datapoint once; p(z|x) is invariant.

    Args:
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed.
      x: `[D]` one datapoint.
      z: `[J]` where its chain is, or a pytree.
      step_size: `[]` of the leapfrog integrator.
      prior: p(z); None is the standard normal of z's shape.
      num_leapfrog_steps: static.

    Returns:
      The chain's next position, and the probability `[]` with which the proposal was
      accepted.

    Raises:
      TypeError: `decode` does not return a distribution.
      ValueError: a log density is not a scalar.

    Source: Appendix E; the kernel is `hmc_step`.

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(2))
    >>> z, acceptance = e_step(decode, jax.random.key(0), jnp.ones(2), jnp.zeros(2),
    ...                        1e-3)
    >>> print(z.shape, f"{acceptance:.4f}")
    (2,) 1.0000
    """
    log_density = [lambda z: log_joint(decode, z, x, prior=prior)]
    start = point_at(log_density, z)
    point, info = hmc_step(
        log_density,
        jnp.ones(1, start.values.dtype),
        key,
        start,
        step_size,
        num_leapfrog_steps=num_leapfrog_steps,
    )
    return point.z, info.acceptance


def mcem(
    decode: Callable[[PyTree, jax.Array], Likelihood],
    optimizer: optax.GradientTransformation,
    chains: PyTree,
    *,
    prior: Callable[[PyTree], Posterior | None] = lambda params: None,
    log_prior: Callable[[PyTree], jax.Array] | None = None,
    num_leapfrog_steps: int = 10,
    num_weight_updates: int = 5,
    target_acceptance: float = 0.9,
    step_size: float | jax.Array = 0.1,
    chunk_size: int | None = None,
    axis_name: str | None = None,
) -> Algorithm:
    """Monte Carlo EM: one HMC proposal of each chain, then a few weight updates.

    An update of the `Algorithm` is one iteration on the datapoints of a minibatch. The
    paper's is a batch algorithm: there, the minibatch is the training set.

    - E-step: each datapoint's chain makes one HMC transition of `num_leapfrog_steps`,
      from where it was left.
    - M-step: `num_weight_updates` gradient steps up the mean of log p(x_i, z_i) over
      the minibatch, plus the log prior of the parameters over N, at those z.

    The step size of the integrator, one for all chains, goes up or down after every
    E-step: log ε ← log ε + (mean acceptance of the minibatch − target). It never stops,
    since the posterior never does; each chain is one of N that it depends on.

    Args:
      decode: `decode(params, z) -> p(x|z)`, with `log_prob(x)`.
      optimizer: of the weights.
      chains: `[N, J]` where the chains start: draws of the prior, or zeros. N is the
        size of the training set. Or a pytree with such a leading axis.
      prior: `prior(params) -> p(z)`; None stands for the standard normal.
      log_prior: `log_prior(params) -> []` in nats, such as `log_weight_prior`.
      num_leapfrog_steps: of an E-step, static; 10 in Appendix E.
      num_weight_updates: of an M-step, static; 5 in Appendix E.
      target_acceptance: what the step size is steered to; 0.9 in Appendix E.
      step_size: `[]` the first one.
      chunk_size: datapoints of a device whose chains are moved, and whose gradients are
        taken, at once; static; None is all of them. What a thousand need stays in a
        CPU's cache: an iteration on 50 000 images takes half of the time. Changes
        rounding alone.
      axis_name: of `jax.shard_map`, over which the minibatch is split. Every device
        moves the chains of its share and holds the positions of all.

    Returns:
      `Algorithm`, whose `update` needs `indices`, as `aevb.epoch` gives them, and whose
      `opt_state` is `MCEMState`. `Info.objective` is the mean of log p(x, z) and the
      log prior over N, at the new z and the parameters before the weight updates, in
      nats; aux has `{"log_joint", "acceptance", "step_size"}`.

    Raises:
      ValueError: a count is not a positive integer; `update` is called without
        `indices`.

    Source: Appendix E.

    >>> from aevb import DiagNormal
    >>> decode = lambda b, z: DiagNormal(z + b, jnp.zeros(1))
    >>> algorithm = mcem(decode, optax.sgd(0.1), jnp.zeros((4, 1)))
    >>> state = algorithm.init(jnp.zeros(1))
    >>> state, info = algorithm.update(jax.random.key(0), state, jnp.ones((4, 1)),
    ...                                indices=jnp.arange(4))
    >>> print(state.step, state.opt_state.chains.shape)
    1 (4, 1)
    """
    num_leapfrog_steps = check_count("num_leapfrog_steps", num_leapfrog_steps)
    num_weight_updates = check_count("num_weight_updates", num_weight_updates)
    if chunk_size is not None:
        chunk_size = check_count("chunk_size", chunk_size)
    num_datapoints = len(jax.tree.leaves(chains)[0])

    def objective(
        params: PyTree, key: jax.Array, batch: tuple[jax.Array, PyTree]
    ) -> tuple[jax.Array, jax.Array]:
        del key  # the draws are made

        def one(x: jax.Array, z: PyTree) -> jax.Array:
            return log_joint(partial(decode, params), z, x, prior=prior(params))

        # For the gradient a chunk is computed again, and nothing of it is kept.
        own = one if chunk_size is None else jax.checkpoint(one)
        log_joints = _by_chunks(own, chunk_size, *batch)
        value = dataset_bound(log_joints, num_datapoints)
        if log_prior is not None:
            value += log_prior(params)
        return value / num_datapoints, jnp.mean(log_joints)

    climb_objective: Any = objective  # its batch is (xs, zs)
    maximize = gradient_algorithm(climb_objective, optimizer, axis_name=axis_name)

    def init(params: PyTree) -> State:
        inner = maximize.init(params)
        log_step_size = jnp.log(jnp.asarray(step_size, jnp.float32))
        carried = MCEMState(inner.opt_state, chains, log_step_size)
        return State(inner.step, params, carried)

    def update(
        key: jax.Array,
        state: State,
        batch: jax.Array,
        *,
        indices: jax.Array | None = None,
    ) -> tuple[State, Info]:
        if indices is None:
            raise ValueError(
                "mcem keeps a chain of each datapoint, and indices is None: say which "
                "datapoints the batch has (aevb.epoch does)"
            )
        params, carried = state.params, state.opt_state
        size = jnp.exp(carried.log_step_size)
        places = global_indices(len(batch), axis_name)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)

        def move(key: jax.Array, x: jax.Array, z: PyTree) -> tuple[PyTree, jax.Array]:
            return e_step(
                partial(decode, params),
                key,
                x,
                z,
                size,
                prior=prior(params),
                num_leapfrog_steps=num_leapfrog_steps,
            )

        zs = jax.tree.map(lambda leaf: leaf[indices], carried.chains)
        zs, accepted = _by_chunks(move, chunk_size, keys, batch, zs)
        acceptance = jnp.mean(accepted)
        if axis_name is not None:
            acceptance = jax.lax.pmean(acceptance, axis_name)
        everywhere = partial(_gather, axis_name=axis_name)
        moved = everywhere(indices)
        new_chains = jax.tree.map(
            lambda leaf, z: leaf.at[moved].set(everywhere(z)), carried.chains, zs
        )

        def climb(state: State, _: None) -> tuple[State, Info]:
            return maximize.update(key, state, (batch, zs))

        inner = State(state.step, params, carried.optimizer)
        inner, infos = jax.lax.scan(climb, inner, None, length=num_weight_updates)
        first = jax.tree.map(lambda leaf: leaf[0], infos)
        log_step_size = carried.log_step_size + (acceptance - target_acceptance)
        aux = {"log_joint": first.aux, "acceptance": acceptance, "step_size": size}
        return State(
            state.step + 1,
            inner.params,
            MCEMState(inner.opt_state, new_chains, log_step_size),
        ), Info(first.objective, aux, first.grad_norm)

    return Algorithm(init, update)


def _by_chunks(function: Callable, size: int | None, *arrays: Any) -> Any:
    """`jax.vmap`, of so many rows at once."""
    if size is None or size >= len(arrays[0]):
        return jax.vmap(function)(*arrays)
    return jax.lax.map(lambda row: function(*row), arrays, batch_size=size)


def _gather(leaf: Any, *, axis_name: str | None) -> jax.Array:
    """All devices' shares `[m, ...]` one after another, the same on every device."""
    if axis_name is None:
        return leaf
    # A sum with zeros, and exact: unlike all_gather it is known to be the same
    # everywhere, which shard_map asks of what is replicated.
    num_devices = jax.lax.axis_size(axis_name)
    shares = jnp.zeros((num_devices, *leaf.shape), leaf.dtype)
    shares = shares.at[jax.lax.axis_index(axis_name)].set(leaf)
    whole = jax.lax.psum(shares, axis_name)
    return whole.reshape(-1, *leaf.shape[1:])
