"""Routed experts of a step: how many are hit, and how they fall on ranks."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from kernels.elementary import expm1, log1p
from kernels.types import Engine, Layout, Model, pytree


def hit_growth(n_experts: Array, n_experts_per_token: Array, skew: Array) -> Array:
    """(1 − k/E)^(−c) − 1 of `distinct_experts`."""
    miss_one = log1p(-jnp.minimum(n_experts_per_token / jnp.maximum(n_experts, 1.0), 1.0 - 1e-6))
    return expm1(-jnp.maximum(skew, 1e-3) * miss_one)


def distinct_experts(n_experts: Array, growth: Array, n_tokens: Array, skew: Array) -> Array:
    """Expected number of distinct experts of a layer that a step's tokens hit; growth: `hit_growth`.

    Uniform independent routing gives E·(1 − (1 − k/E)^T). Real routers prefer some experts: with popularity drawn
    from a Gamma law of squared variation c, the chance that an expert is missed by T tokens is
    P₀(T) = (1 + T·((1 − k/E)^(−c) − 1))^(−1/c), which is exact at T = 0 and T = 1 and uniform as c → 0.
    Source: negative-binomial mixture; c against power-law routing of measured MoE kernels (see docs/physics.md).
    """
    return -n_experts * expm1(-log1p(n_tokens * growth) / jnp.maximum(skew, 1e-3))


def most_of_ranks(n_ranks: Array) -> Array:
    """Expected largest of n standard normal deviates: Φ⁻¹((n − 3/8) / (n + 1/4)) (Blom, 1958); 0 for one."""
    return ndtri((n_ranks - 0.375) / (n_ranks + 0.25))


def fullest_rank(
    n_experts: Array, n_rows: Array, hit: Array, n_ranks: Array, skew: Array, most: Array
) -> tuple[Array, Array]:
    """(Distinct experts, rows) of the fullest of n EP ranks in a step of T·k rows that hits `hit` experts of a layer.

    Random placement spreads f·E/n experts a rank by √((n − 1)/(f·E)) of their mean: 1 − (1 − f)^(1 + g) of a rank's
    experts, g the spread of the fullest, tends to f·(1 + g) for few and to all for many. Rows spread with their number
    and, however many, with the popularity of experts (squared variation c = skew): √((n − 1)·(c/E + 1/(T·k))).
    most: standard deviations by which the fullest is above the mean: `most_of_ranks` where placement is random.
    n_ranks: the number 1 where a whole grid has no more.
    """
    others = jnp.maximum(n_ranks - 1.0, 0.5)  # a lone rank has no spread: most = 0, and a finite gradient
    n_experts = jnp.maximum(n_experts, 1.0)
    filled = jnp.clip(hit / n_experts, 1e-9, 1.0 - 1e-6)
    if isinstance(n_ranks, float) and n_ranks == 1.0:
        return jnp.where(hit > 0, jnp.maximum(filled * n_experts, jnp.minimum(hit, 1.0)), 0.0), n_rows
    more = most * jnp.sqrt(others / (filled * n_experts))
    experts = -n_experts / n_ranks * expm1((1.0 + more) * log1p(-filled))
    spread = most * jnp.sqrt(others * (skew / n_experts + 1.0 / jnp.maximum(n_rows, 1.0)))
    fullest = jnp.minimum(n_rows / n_ranks * (1.0 + spread), n_rows)
    return jnp.where(hit > 0, jnp.clip(experts, jnp.minimum(hit, 1.0), n_experts / n_ranks), 0.0), fullest


@pytree
class Routing:
    """How the tokens of a step spread over the experts of a layer, and these over EP ranks."""

    n_experts: Array
    n_experts_per_token: Array
    skew: Array
    growth: Array  # hit_growth
    most: Array  # standard deviations by which the fullest rank is above the mean
    n_ranks: Array


def routing(model: Model, engine: Engine, layout: Layout) -> Routing:
    """Imbalance scales the spread over ranks: 1 as random, 0 as balanced as an expert balancer can."""
    return Routing(
        n_experts=model.n_experts,
        n_experts_per_token=model.n_experts_per_token,
        skew=engine.routing_skew,
        growth=hit_growth(model.n_experts, model.n_experts_per_token, engine.routing_skew),
        most=engine.expert_imbalance * most_of_ranks(layout.ep),
        n_ranks=layout.ep,
    )


def experts_of_step(of: Routing, tokens: Array) -> tuple[Array, Array]:
    """(Distinct experts, rows) of the fullest rank in a step of `tokens` over a stage."""
    hit = distinct_experts(of.n_experts, of.growth, tokens, of.skew)
    return fullest_rank(of.n_experts, tokens * of.n_experts_per_token, hit, of.n_ranks, of.skew, of.most)
