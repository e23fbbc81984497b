"""The SVD post-processing, against numerical optimisers, the paper's own form, and closed forms."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from helpers.fairness import svd


def layer(seed=0, people=400, width=6, outputs=5, dead=0):
    """A random layer, its inputs, and two groups that differ in mean and covariance."""
    dice = torch.Generator().manual_seed(seed)
    acts, groups = torch.randn(people, width, generator=dice).double(), np.arange(people) % 3 == 0
    acts[groups] = acts[groups] @ torch.randn(width, width, generator=dice).double() + 0.7
    acts[:, width - dead :] = 0
    return torch.randn(outputs, width, generator=dice).double(), acts, groups


def problem(seed, n=7):
    """Singular values and prices of very different sizes."""
    dice = np.random.default_rng(seed)
    sigma = np.sort(dice.uniform(0.1, 3, n))[::-1].copy()
    prices = torch.from_numpy(10 ** dice.uniform(-2, 3, n))
    return svd.Directions(torch.eye(n).double(), torch.from_numpy(sigma), prices)


def optimise(found, power, limit):
    """Minimise the cost under the limit with SciPy, in factors of the singular values."""
    sigma, k = found.sigma_R.numpy(), found.k_R.numpy()
    price, share = k * sigma**2 / (k * sigma**2).max(), sigma**power / limit
    room = {
        "type": "ineq",
        "fun": lambda f: 1 - (share * f**power).sum(),
        "jac": lambda f: -power * share * f ** (power - 1),
    }
    start = np.full(len(sigma), share.sum() ** (-1 / power))
    best = minimize(
        lambda f: (price * (1 - f) ** 2).sum(),
        start,
        jac=lambda f: -2 * price * (1 - f),
        bounds=[(0, 1)] * len(sigma),
        constraints=room,
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return best.x * sigma


def cost(found, sigma):
    return float((found.k_R * (torch.as_tensor(sigma) - found.sigma_R) ** 2).sum())


# Moments and roots


def test_moments_agree_with_numpy():
    _, acts, groups = layer()
    seen, x = svd.moments(acts, groups), acts.numpy()
    np.testing.assert_allclose(seen.delta_D, x[~groups].mean(0) - x[groups].mean(0))
    np.testing.assert_allclose(seen.spread_DD, np.cov(x[~groups].T) - np.cov(x[groups].T))
    np.testing.assert_allclose(seen.gram_DD, x.T @ x)


def test_one_input_is_enough():
    seen = svd.moments(torch.tensor([[0.0], [2.0], [5.0], [9.0]]), ["a", "a", "b", "b"])
    assert seen.spread_DD.tolist() == [[-6.0]]


@pytest.mark.parametrize(
    ("acts", "groups", "why"),
    [
        (torch.zeros(3, 2), [0, 0, 0], r"1 groups were given \(0\)"),
        (torch.zeros(3, 2), ["a", "b", "c"], "3 groups were given"),
        (torch.zeros(3, 2), [0, 1, 1], "the groups have 1 and 2 people"),
        (torch.zeros(3, 2), [0, 1], "3 rows and 2 groups"),
        (torch.zeros(0, 2), [], r"0 groups were given \(none\)"),
        (torch.tensor([[0.0], [1.0], [float("nan")], [2.0]]), [0, 0, 1, 1], "1 of 4 rows hold NaN"),
    ],
)
def test_bad_groups_are_named(acts, groups, why):
    with pytest.raises(ValueError, match=why):
        svd.moments(acts, groups)


@pytest.mark.parametrize("ridge", [0.0, 1e-5])
def test_mean_root_squares_to_the_difference_of_means(ridge):
    seen = svd.moments(*layer()[1:])
    root = svd.mean_root(seen, ridge=ridge)
    expected = torch.outer(seen.delta_D, seen.delta_D) + ridge * torch.eye(6)
    torch.testing.assert_close(root @ root.T, expected)
    with pytest.raises(ValueError, match="ridge is -1"):
        svd.mean_root(seen, ridge=-1)


def test_covariance_root_restores_the_difference_with_its_signs():
    seen = svd.moments(*layer()[1:])
    root = svd.covariance_root(seen)
    signs = torch.diag(torch.linalg.eigvalsh(seen.spread_DD).sign()).double()
    torch.testing.assert_close(root @ signs @ root.T, seen.spread_DD)


# The identities of the paper


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_singular_values_are_the_disparity(seed):
    weight, acts, groups = layer(seed)
    seen, z = svd.moments(acts, groups), acts @ weight.T
    mean = svd.directions(weight, svd.mean_root(seen), gram_DD=seen.gram_DD)
    gap = z[~groups].mean(0) - z[groups].mean(0)
    assert float(mean.sigma_R.square().sum()) == pytest.approx(float(gap @ gap), rel=1e-9)
    spread = svd.directions(weight, svd.covariance_root(seen), gram_DD=seen.gram_DD)
    apart = torch.cov(z[~groups].T) - torch.cov(z[groups].T)
    assert float(apart.square().sum()) <= float(spread.sigma_R.pow(4).sum()) * (1 + 1e-9)


def test_bound_is_exact_where_one_covariance_is_above_the_other():
    weight, acts, groups = layer()
    acts[groups] = 0.3 * acts[~groups][: groups.sum()]
    acts[~groups] = acts[~groups] - acts[~groups].mean(0)
    seen = svd.moments(acts, groups)
    assert torch.linalg.eigvalsh(seen.spread_DD).min() > 0
    found = svd.directions(weight, svd.covariance_root(seen), gram_DD=seen.gram_DD)
    apart = weight @ seen.spread_DD @ weight.T
    assert float(found.sigma_R.pow(4).sum()) == pytest.approx(float(apart.square().sum()))


@pytest.mark.parametrize("root", [partial(svd.mean_root, ridge=1e-5), svd.covariance_root])
def test_the_form_without_an_inverse_is_the_papers(root):
    weight, acts, groups = layer()
    seen = svd.moments(acts, groups)
    root = root(seen)
    found = svd.directions(weight, root, gram_DD=seen.gram_DD)
    u, sigma, vt = torch.linalg.svd(weight @ root, full_matrices=False)
    back = vt @ torch.linalg.pinv(root)
    np.testing.assert_allclose(found.k_R, ((back @ seen.gram_DD) * back).sum(1), rtol=1e-6)
    new = sigma * torch.linspace(0.2, 0.9, len(sigma))
    np.testing.assert_allclose(
        svd.rescale(weight, found, sigma_R=new), u @ torch.diag(new) @ vt @ torch.linalg.inv(root), atol=1e-8
    )
    change = acts @ (svd.rescale(weight, found, sigma_R=new) - weight).T
    assert cost(found, new) == pytest.approx(float(change.square().sum()))


# The optima


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("shrink", "power"), [(svd.shrink_mean, 2), (svd.shrink_covariance, 4)])
def test_closed_forms_are_what_an_optimiser_finds(shrink, power, seed):
    found = problem(seed)
    limit = float(found.sigma_R.pow(power).sum()) / (3 + 40 * seed)
    ours = shrink(found, limit=limit)
    assert float(ours.sigma_R.pow(power).sum()) == pytest.approx(limit, rel=1e-9)
    theirs = optimise(found, power, limit)
    assert cost(found, ours.sigma_R) == pytest.approx(cost(found, theirs), rel=1e-6)
    np.testing.assert_allclose(ours.sigma_R, theirs, atol=1e-4)


def test_covariance_root_solves_its_cubic():
    found = problem(9)
    ours = svd.shrink_covariance(found, limit=float(found.sigma_R.pow(4).sum()) / 150)
    x, sigma, k = ours.sigma_R, found.sigma_R, found.k_R
    np.testing.assert_allclose(2 * ours.multiplier * x**3 + k * x, k * sigma, rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.001, 1e6))
def test_a_tighter_limit_never_raises_a_singular_value(seed, factor):
    found = problem(seed)
    for shrink, power in ((svd.shrink_mean, 2), (svd.shrink_covariance, 4)):
        total = float(found.sigma_R.pow(power).sum())
        loose, tight = (shrink(found, limit=total / (factor * more)).sigma_R for more in (1, 2))
        assert (tight <= loose + 1e-12).all()
        assert (tight >= 0).all()


@pytest.mark.parametrize("shrink", [svd.shrink_mean, svd.shrink_covariance])
def test_a_limit_that_is_met_changes_nothing(shrink):
    found = problem(0)
    assert shrink(found, limit=1e9).multiplier == 0
    assert torch.equal(shrink(found, limit=1e9).sigma_R, found.sigma_R)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="give a number above 0"):
            shrink(found, limit=bad)


@pytest.mark.parametrize("shrink", [svd.shrink_mean, svd.shrink_covariance])
def test_a_direction_that_costs_nothing_goes_first(shrink):
    found = svd.Directions(torch.eye(2), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]))
    np.testing.assert_allclose(shrink(found, limit=1.0 - 1e-9).sigma_R, [0, 1], atol=1e-5)


# The layer


def test_process_meets_both_limits():
    weight, acts, groups = layer()
    seen = svd.moments(acts, groups)
    after = svd.process(weight, seen, mean=15.0, covariance=1.0)
    before = float((weight @ seen.delta_D).square().sum())
    assert float((after @ seen.delta_D).square().sum()) == pytest.approx(before / 15)
    after = svd.process(weight, seen, mean=1.0, covariance=150.0)
    sums = [
        float(svd.directions(w, svd.covariance_root(seen), gram_DD=seen.gram_DD).sigma_R.pow(4).sum())
        for w in (weight, after)
    ]
    assert sums[1] <= sums[0] / 150 * (1 + 1e-6)
    assert torch.equal(svd.process(weight, seen, mean=1.0, covariance=1.0), weight)


def test_inputs_that_are_always_zero_do_no_harm():
    weight, acts, groups = layer(dead=2)
    seen = svd.moments(acts, groups)
    assert svd.covariance_root(seen).shape == (6, 4)
    for change in (svd.process, svd.erase):
        assert change(weight, seen).isfinite().all()
        np.testing.assert_allclose(
            change(weight, seen)[:, :4], change(weight[:, :4], svd.moments(acts[:, :4], groups)), atol=1e-9
        )


def test_equal_groups_change_nothing():
    weight, acts, _ = layer()
    seen = svd.moments(torch.cat([acts, acts]), np.repeat([0, 1], len(acts)))
    for change in (svd.process, svd.erase):
        assert torch.equal(change(weight, seen), weight)


@pytest.mark.parametrize("mean", [4.0, float("inf")])
def test_erase_is_the_least_change_among_all_layers(mean):
    weight, acts, groups = layer()
    seen = svd.moments(acts, groups)
    after = svd.erase(weight, seen, mean=mean)
    np.testing.assert_allclose(after @ seen.delta_D, weight @ seen.delta_D * mean**-0.5, atol=1e-9)
    change = float((acts @ (after - weight).T).square().sum())
    dice = torch.Generator().manual_seed(0)
    for _ in range(20):  # move within the layers that map delta to the same point
        off = torch.randn(weight.shape, generator=dice).double()
        off -= torch.outer(off @ seen.delta_D, seen.delta_D) / seen.delta_D.square().sum()
        assert float((acts @ (after + 0.01 * off - weight).T).square().sum()) > change
    best = svd.rescale(
        weight,
        one := svd.directions(weight, svd.mean_root(seen), gram_DD=seen.gram_DD),
        sigma_R=one.sigma_R * mean**-0.5,
    )
    assert change < float((acts @ (best - weight).T).square().sum())


def test_factors_below_one_and_layers_that_do_not_fit_are_refused():
    weight, acts, groups = layer()
    seen = svd.moments(acts, groups)
    with pytest.raises(ValueError, match=r"factors 0\.5 and 150"):
        svd.process(weight, seen, mean=0.5)
    with pytest.raises(ValueError, match=r"the factor is 0\.5"):
        svd.erase(weight, seen, mean=0.5)
    with pytest.raises(ValueError, match="do not fit: take all three from the same layer"):
        svd.directions(weight[:, :3], svd.mean_root(seen), gram_DD=seen.gram_DD)


# The network


def people(n=256, seed=0):
    dice = np.random.default_rng(seed)
    groups = dice.random(n) < 0.4
    features = dice.normal(size=(n, 3)) + 0.8 * groups[:, None]
    return features, features @ [1.0, -0.5, 0.3] + 0.3 * dice.normal(size=n), groups


def trained(**settings):
    features, target, _ = people()
    net = svd.Regressor(3, width=16, **settings)
    return svd.fit(net, features, target_N=target, epochs=12, batch_size=32, lr=1e-2)


def test_training_learns_and_repeats_itself():
    features, target, _ = people()
    state = torch.get_rng_state()
    first, second = trained(), trained()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first.predict(features), second.predict(features))
    assert ((first.predict(features) - target) ** 2).mean() < 0.3 * target.var()


def test_people_who_weigh_nothing_are_not_learnt_from():
    features, target, groups = people()
    net = svd.Regressor(3, width=16)
    svd.fit(
        net, features, target_N=np.where(groups, 50.0, target), weights_N=~groups, epochs=8, batch_size=32
    )
    assert net.predict(features).max() < 10


def test_postprocess_changes_one_layer_of_a_copy():
    features, _, groups = people()
    net = trained()
    before = copy.deepcopy(net.state_dict())
    after = svd.postprocess(net, features, groups, change=partial(svd.erase, mean=float("inf")))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    changed = [name for name, value in after.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["layer.weight"]
    with torch.no_grad():
        z = after.layer(after.acts(torch.as_tensor(features, dtype=torch.float32))).numpy()
    np.testing.assert_allclose(z[groups].mean(0), z[~groups].mean(0), atol=1e-4)


def test_exact_refit_is_least_squares_on_what_enters_the_last_layer():
    features, target, _ = people()
    net = trained()
    frozen = [value.clone() for value in net.layer.parameters()]
    svd.refit(net, features, target_N=target, how="least-squares")
    assert all(torch.equal(a, b) for a, b in zip(frozen, net.layer.parameters(), strict=True))
    with torch.no_grad():
        hidden = net.hidden(torch.as_tensor(features, dtype=torch.float32)).double().numpy()
    error = target - net.predict(features)
    assert abs(error.mean()) < 1e-3
    assert abs(hidden.T @ error).max() / len(error) < 1e-3


def test_refit_by_adam_moves_the_last_layer_only():
    features, target, groups = people()
    made = svd.postprocess(trained(), features, groups)
    before = copy.deepcopy(made.state_dict())
    error = ((made.predict(features) - target) ** 2).mean()
    svd.refit(made, features, target_N=target, epochs=10, batch_size=32)
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"last.weight", "last.bias"}
    assert ((made.predict(features) - target) ** 2).mean() < error


def test_in_a_linear_network_the_exact_refit_undoes_the_rescaling():
    """The layer's outputs are rescaled, W' = M W; the best last layer takes M back."""
    features, target, groups = people()
    net = svd.refit(trained(linear=True), features, target_N=target, how="least-squares")
    made = svd.postprocess(net, features, groups)
    assert abs(made.predict(features) - net.predict(features)).max() > 0.1
    svd.refit(made, features, target_N=target, how="least-squares")
    np.testing.assert_allclose(made.predict(features), net.predict(features), atol=1e-3)


def test_bad_people_are_named():
    features, target, _ = people()
    net = svd.Regressor(3, width=16)
    with pytest.raises(ValueError, match="256 people are less than a batch of 300"):
        svd.fit(net, features, target_N=target, batch_size=300)
    with pytest.raises(ValueError, match="give one row of features and one number a person"):
        svd.fit(net, features, target_N=target[:5])
    with pytest.raises(ValueError, match="NaN or infinite"):
        svd.refit(net, features, target_N=np.where(target > 0, np.nan, target))
    with pytest.raises(ValueError, match="how is 'sgd'"):
        svd.refit(net, features, target_N=target, how="sgd")
    with pytest.raises(ValueError, match="1 groups were given"):
        svd.postprocess(net, features, np.zeros(256))
