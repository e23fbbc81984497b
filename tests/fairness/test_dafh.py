"""Learned groups: the objective, the fit, and the tests of harm, each computed a second way."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import zero_one_loss
from torch.nn.functional import softplus

from helpers.fairness import dafh
from helpers.fairness.dafh import Decoupled, Training

QUICK = Training(steps=150, restarts=2)


def people(separation=2.0, n=600, seed=0, **settings):
    return dafh.population(n, separation=separation, seed=seed, **settings)


def stripes(n=120, seed=0):
    """One feature; the label is up in the two outer thirds: no single line fits, two do."""
    dice = torch.Generator().manual_seed(seed)
    x_ND = torch.rand(n, 1, generator=dice, dtype=torch.float64) * 6 - 3
    return x_ND, (x_ND[:, 0].abs() > 1) ^ (torch.rand(n, generator=dice) < 0.05)


def surrogate(x_ND, y_N, weights_D):
    return float(softplus(-(2.0 * y_N - 1) * (weights_D[0] + x_ND @ weights_D[1:])).mean())


def priced(x_ND, y_N, weights_D, ridge):
    """What `logistic` minimises."""
    price = weights_D[1:].square().sum() + 1e-3 * weights_D[0] ** 2
    return surrogate(x_ND, y_N, weights_D) + ridge / 2 * float(price)


# The classifiers


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_logistic_agrees_with_scikit_learn(ridge):
    x_ND, y_N, _ = people()
    theirs = LogisticRegression(C=1 / (ridge * len(x_ND)), tol=1e-10, max_iter=1000).fit(x_ND, y_N)
    ours_D = dafh.logistic(x_ND, y_N, ridge=ridge)
    np.testing.assert_allclose(ours_D[1:], theirs.coef_[0], atol=1e-3)
    assert priced(x_ND, y_N, ours_D, ridge) <= priced(
        x_ND, y_N, torch.tensor(np.r_[theirs.intercept_, theirs.coef_[0]]), ridge
    )


def test_collinear_features_and_constant_labels_have_an_answer():
    x_ND, y_N, _ = people(n=100)
    twice_ND = torch.cat([x_ND, x_ND], 1)  # a singular covariance
    weights_D = dafh.logistic(twice_ND, y_N)
    torch.testing.assert_close(weights_D[1:6], weights_D[6:], atol=1e-4, rtol=0)
    always_D = dafh.logistic(x_ND, torch.ones(100, dtype=torch.bool))
    assert always_D.isfinite().all()
    assert (always_D[0] + x_ND @ always_D[1:] > 0).all()


def test_a_step_that_overshoots_is_halved():
    dice = torch.Generator().manual_seed(133)
    n, d = (int(torch.randint(*ends, (1,), generator=dice)) for ends in ((5, 200), (1, 6)))
    x_ND = torch.randn(n, d, generator=dice).double() ** 3  # heavy tails: the full step raises the loss
    rule_D = 5 * torch.randn(d, generator=dice).double()
    y_N = x_ND @ rule_D + torch.randn(n, generator=dice) > 2
    weights_D = dafh.logistic(x_ND, y_N, ridge=1e-8).requires_grad_()
    margin_N = (2.0 * y_N - 1) * (weights_D[0] + x_ND @ weights_D[1:])
    price = weights_D[1:].square().sum() + 1e-3 * weights_D[0] ** 2
    (slope_D,) = torch.autograd.grad(softplus(-margin_N).mean() + 1e-8 / 2 * price, weights_D)
    assert slope_D.abs().max() < 1e-6


# The objective


def by_hand(gate, loss, pooled, rational, envy):
    """(A-2) in loops."""
    gate, loss, pooled = gate.numpy(), loss.numpy(), pooled.numpy()
    n, k = gate.shape
    mass = [sum(gate[i, j] for i in range(n)) for j in range(k)]
    risk = [[sum(gate[i, a] * loss[i, b] for i in range(n)) / mass[a] for b in range(k)] for a in range(k)]
    base = [sum(gate[i, a] * pooled[i] for i in range(n)) / mass[a] for a in range(k)]
    total = sum(mass[a] / n * risk[a][a] + rational * max(0, risk[a][a] - base[a]) for a in range(k))
    return total + envy * sum(max(0, risk[a][a] - risk[a][b]) for a, b in product(range(k), range(k)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0, 3), st.floats(0, 3))
def test_objective_is_its_formula(seed, k, rational, envy):
    dice = torch.Generator().manual_seed(seed)
    gate_NK = torch.rand(7, k, generator=dice, dtype=torch.float64).softmax(1)
    loss_NK = torch.rand(7, k, generator=dice, dtype=torch.float64)
    pooled_N = torch.rand(7, generator=dice, dtype=torch.float64)
    found = dafh.objective(gate_NK, loss_NK, pooled_N=pooled_N, rational=rational, envy=envy)
    assert found.item() == pytest.approx(by_hand(gate_NK, loss_NK, pooled_N, rational, envy), rel=1e-9)


def test_an_empty_group_costs_nothing():
    gate_NK = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss_NK = torch.tensor([[0.5, 9.0], [0.7, 9.0]])
    assert dafh.objective(gate_NK, loss_NK, pooled_N=torch.ones(2)).item() == pytest.approx(0.6)


# The fit


def test_the_fit_reaches_the_best_of_all_thresholds():
    x_ND, y_N = stripes()
    order = x_ND[:, 0].sort().values
    cuts = ((order[1:] + order[:-1]) / 2)[2:-2:2]
    best = math.inf
    for cut in cuts:
        sides = [x_ND[:, 0] < cut, x_ND[:, 0] >= cut]
        heads = [dafh.logistic(x_ND[side], y_N[side]) for side in sides]
        risk = [surrogate(x_ND[s], y_N[s], w) * int(s.sum()) for s, w in zip(sides, heads, strict=True)]
        best = min(best, sum(risk) / len(x_ND))
    made = dafh.fit(x_ND, y_N, training=Training(steps=300, restarts=8))
    chance = dafh.decouple(x_ND, y_N, gate_DK=torch.tensor([[0.0, 6.0], [0.0, 2.0]]).double())
    pooled = surrogate(x_ND, y_N, made.pooled_D)
    closed, by_chance = (
        (pooled - dafh.joint_risk(one, x_ND, y_N)) / (pooled - best) for one in (made, chance)
    )
    assert 0.95 < closed <= 1.01
    assert by_chance < 0.8


def test_starts_side_by_side_are_priced_one_by_one():
    dice = torch.Generator().manual_seed(2)
    gate_RNK = torch.rand(4, 9, 3, generator=dice).softmax(-1)
    loss_RNK, pooled_N = torch.rand(4, 9, 3, generator=dice), torch.rand(9, generator=dice)
    together = dafh.objective(gate_RNK, loss_RNK, pooled_N=pooled_N)
    alone = [dafh.objective(g, x, pooled_N=pooled_N) for g, x in zip(gate_RNK, loss_RNK, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_more_starts_never_find_a_higher_loss():
    x_ND, y_N, _ = people(separation=0.0, n=300)
    risks = []
    for restarts in (1, 4):
        made = dafh.fit(x_ND, y_N, training=Training(steps=60, restarts=restarts), seed=5)
        risks.append(dafh.joint_risk(made, x_ND, y_N))
    assert risks[1] < risks[0]


@pytest.mark.parametrize("learned", [True, False])
def test_every_gate_is_harmless_on_what_it_was_fitted_to(learned):
    x_ND, y_N, _ = people(separation=1.0)
    made = dafh.fit(x_ND, y_N, k=3, training=QUICK)
    if not learned:
        made = dafh.decouple(x_ND, y_N, gate_DK=dafh.random_gate(x_ND, k=3))
    for group in range(3):
        x, y = (values[made.groups(x_ND) == group] for values in (x_ND, y_N))
        own = priced(x, y, made.heads_DK[:, group], 1e-3)
        others = [made.pooled_D, *made.heads_DK.T]
        assert all(own <= priced(x, y, other_D, 1e-3) + 1e-7 for other_D in others)


def test_groups_that_features_reveal_are_found():
    x_ND, y_N, a_N = people(separation=3.0)
    made = dafh.fit(x_ND, y_N, training=QUICK)
    assert dafh.agreement(made.groups(x_ND), a_N) > 0.95
    known = dafh.decouple(x_ND, y_N, groups_N=a_N)
    assert (made.predict(x_ND) != y_N).double().mean() <= (
        known.predict(x_ND, a_N) != y_N
    ).double().mean() + 0.02


def test_one_group_is_the_pooled_classifier():
    x_ND, y_N, _ = people(n=200)
    made = dafh.fit(x_ND, y_N, k=1, training=Training(steps=3))
    torch.testing.assert_close(made.heads_DK[:, 0], made.pooled_D, atol=1e-6, rtol=0)
    assert torch.equal(made.predict(x_ND), made.pooled(x_ND))


def test_a_seed_repeats_itself_in_either_precision():
    x_ND, y_N, _ = people(n=200)
    first, again = (dafh.fit(x_ND, y_N, training=QUICK, seed=3) for _ in range(2))
    other = dafh.fit(x_ND, y_N, training=Training(steps=150, restarts=1), seed=4)
    assert torch.equal(first.gate_DK, again.gate_DK)
    assert not torch.equal(first.gate_DK, other.gate_DK)
    assert dafh.fit(x_ND.float(), y_N, training=Training(steps=5)).heads_DK.dtype == torch.float64


def test_a_group_without_people_keeps_the_pooled_classifier():
    x_ND, y_N, _ = people(n=50)
    gate_DK = torch.zeros(6, 3, dtype=torch.float64)
    gate_DK[0] = torch.tensor([0.0, 1.0, -1.0])  # everybody goes to the middle group
    made = dafh.decouple(x_ND, y_N, gate_DK=gate_DK)
    for group in (0, 2):
        assert torch.equal(made.heads_DK[:, group], made.pooled_D)
    known = dafh.decouple(x_ND, y_N, groups_N=torch.full((50,), 1))
    assert torch.equal(known.heads_DK[:, 0], known.pooled_D)
    more = dafh.decouple(x_ND, y_N, groups_N=torch.full((50,), 1), k=4)
    assert torch.equal(more.predict(x_ND, torch.full((50,), 3)), more.pooled(x_ND))


def test_the_gate_cools_in_a_line():
    training = Training(steps=11, hot=1.0, cold=0.5)
    assert [training.temperature(step) for step in (0, 5, 10)] == pytest.approx([1.0, 0.75, 0.5])
    assert Training(steps=1).temperature(0) == 1.0


# The tests of harm


def test_audit_is_what_it_says():
    dice = torch.Generator().manual_seed(0)
    wrong_NK = torch.rand(90, 3, generator=dice) < 0.4
    pooled_N, groups_N = torch.rand(90, generator=dice) < 0.4, torch.randint(0, 2, (90,), generator=dice)
    found = dafh.audit(wrong_NK, pooled_N, groups_N=groups_N)
    for row, column in product(range(2), range(3)):
        here = wrong_NK[groups_N == row][:, column].double().mean().item()
        assert found.error_KK[row, column] == pytest.approx(here)
    gaps = [found.error_KK[g, g] - pooled_N[groups_N == g].double().mean().item() for g in range(2)]
    assert found.rationality == pytest.approx(max(gaps))
    envy = [
        found.error_KK[g, g] - found.error_KK[g, other] for g in range(2) for other in range(3) if g != other
    ]
    assert found.envy == pytest.approx(max(envy))
    assert np.isnan(found.pooled_K[2])
    assert found.share_K[2] == 0
    assert len(found.p_values()) == 2 + 4


def test_groups_too_small_to_judge_are_left_out():
    wrong_NK = torch.tensor([[False, True]] * 9 + [[False, True]])
    pooled_N, groups_N = torch.zeros(10).bool(), torch.tensor([0] * 9 + [1])
    all_of_them = dafh.audit(wrong_NK, pooled_N, groups_N=groups_N)
    found = dafh.audit(wrong_NK, pooled_N, groups_N=groups_N, least=2)
    assert all_of_them.rationality == 1
    assert found.rationality == 0
    assert found.envy == -1
    assert found.share_K.tolist() == [0.9, 0.1]
    assert len(found.p_values()) == 2


def test_the_audit_finds_swapped_classifiers():
    x_ND, y_N, a_N = people(n=1500)
    known = dafh.decouple(x_ND, y_N, groups_N=a_N)
    wrong_NK = known.guesses(x_ND) != y_N[:, None]
    right, swapped = (
        dafh.audit(each, known.pooled(x_ND) != y_N, groups_N=a_N) for each in (wrong_NK, wrong_NK.flip(1))
    )
    assert max(swapped.p_values()) < 1e-6 or swapped.p_rational_K[0] < 1e-6
    assert min(right.p_values()) > 0.5
    assert right.envy < 0 < swapped.envy


def test_one_group_has_nobody_to_envy():
    found = dafh.audit(torch.tensor([[True]]), torch.tensor([False]), groups_N=torch.tensor([0]))
    assert found.envy == 0
    assert found.rationality == 1


@pytest.mark.parametrize(("alone", "theirs"), [(0, 0), (0, 4), (3, 2), (9, 1)])
def test_mcnemar_counts_coin_flips(alone, theirs):
    both, ours = torch.tensor([True, False]), torch.tensor([True] * alone + [False] * theirs).bool()
    found = dafh.mcnemar(torch.cat([both, ours]), torch.cat([both, ~ours]))
    total = alone + theirs
    chance = sum(math.comb(total, heads) for heads in range(alone, total + 1)) / 2**total
    assert found == pytest.approx(chance)


def test_harms_agree_with_fairlearn():
    dice = torch.Generator().manual_seed(1)
    truth = torch.rand(80, generator=dice) < 0.5
    ours, pooled = (torch.rand(80, generator=dice) < 0.5 for _ in range(2))
    who = ["ab"[i] for i in torch.randint(0, 2, (80,), generator=dice)]
    found = dafh.harms(ours != truth, pooled != truth, people=who)
    for name, guess in (("ours", ours), ("pooled", pooled)):
        theirs = MetricFrame(
            metrics=zero_one_loss, y_true=truth.numpy(), y_pred=guess.numpy(), sensitive_features=who
        ).by_group
        np.testing.assert_allclose(found[name], theirs)
    np.testing.assert_allclose(found.harm, found.ours - found.pooled)
    assert found.people.sum() == 80


def test_agreement_does_not_care_about_numbers():
    groups_N = torch.tensor([0, 1, 2, 2, 1, 0])
    assert dafh.agreement(groups_N, (groups_N + 1) % 3) == 1
    assert dafh.agreement(groups_N, torch.zeros(6, dtype=torch.long)) == pytest.approx(1 / 3)


# The population


def test_labels_follow_the_rules_that_are_written_down():
    x_ND, y_N, a_N = people(n=60_000, separation=1.0)
    for kind, (weights, shift) in enumerate(zip(dafh.LABEL_WEIGHTS, dafh.LABEL_SHIFTS, strict=True)):
        theirs = a_N == kind
        chance_N = (3 * (x_ND[theirs, :4] @ torch.tensor(weights).double() + shift)).sigmoid()
        assert float(chance_N.mean() - y_N[theirs].double().mean()) == pytest.approx(0, abs=0.01)
        assert float(x_ND[theirs, 4].mean()) == pytest.approx(2 * kind - 1, abs=0.03)


def test_a_demographic_can_say_nothing():
    x_ND, _, a_N = people(n=40_000, copy=0.0)
    assert float(x_ND[a_N == 1, 4].mean() - x_ND[a_N == 0, 4].mean()) == pytest.approx(0, abs=0.06)
    assert float(a_N.double().mean()) == pytest.approx(0.35, abs=0.01)


def test_random_gates_part_people_and_differ_by_seed():
    x_ND, _, _ = people(n=400)
    first, second = (dafh.random_gate(x_ND, k=2, seed=seed) for seed in (0, 1))
    made = [Decoupled(gate, gate, gate[:, 0]).groups(x_ND) for gate in (first, second)]
    assert all(100 < int(groups_N.sum()) < 300 for groups_N in made)
    assert not torch.equal(*made)


# Bad input


def with_nan():
    x_ND, y_N, _ = people(n=20)
    x_ND[3, 2] = math.nan
    return x_ND, y_N


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y, a: dafh.fit(*with_nan()), "features of 1 people hold NaN"),
        (lambda x, y, a: dafh.logistic(*with_nan()), "features of 1 people hold NaN"),
        (lambda x, y, a: dafh.logistic(x, y, ridge=0.0), "ridge = 0"),
        (lambda x, y, a: dafh.fit(x, y, k=21), "k = 21 groups for 20 people"),
        (lambda x, y, a: dafh.fit(x, y, k=0), "k = 0"),
        (lambda x, y, a: dafh._check(x, y[:-1]), "20 rows of features and 19 labels"),
        (lambda x, y, a: dafh.fit(x[:0], y[:0]), "0 rows"),
        (lambda x, y, a: dafh.decouple(x, y), "give either groups_N"),
        (lambda x, y, a: dafh.decouple(x, y, groups_N=a, gate_DK=torch.zeros(6, 2)), "give either groups_N"),
        (lambda x, y, a: dafh._known(a[:-1], 2, people=20), "19 groups for 20 people"),
        (lambda x, y, a: dafh.decouple(x, y, groups_N=a - 1), "groups .-1. have no classifier"),
        (lambda x, y, a: dafh.decouple(x, y, groups_N=a).groups(x), "have no gate"),
        (lambda x, y, a: dafh.decouple(x, y, groups_N=a).predict(x, a + 1), "groups .2. have no classifier"),
        (lambda x, y, a: dafh.audit(y[:0, None], y[:0], groups_N=a[:0]), "0 people"),
        (lambda x, y, a: dafh.audit(y[:5, None], y[:5], groups_N=0 * a[:5], least=6), "at least 6"),
        (lambda x, y, a: dafh.harms(y, y, people=["a"]), "1 people for 20 answers"),
        (lambda x, y, a: dafh.population(0, separation=0.0), "n = 0"),
        (lambda x, y, a: dafh.population(5, separation=0.0, share=1.5), "share = 1.5"),
        (lambda x, y, a: Training(steps=0), "steps 0"),
        (lambda x, y, a: Training(envy=-1.0), "below zero"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    x_ND, y_N, a_N = people(n=20, share=0.5)
    with pytest.raises(ValueError, match=message):
        call(x_ND, y_N, a_N)


def test_a_group_absent_from_the_test_set_is_no_error():
    x_ND, y_N, a_N = people(n=300)
    known = dafh.decouple(x_ND, y_N, groups_N=a_N)
    alone = a_N == 0
    x, y, a = x_ND[alone], y_N[alone], a_N[alone]
    found = dafh.audit(known.guesses(x) != y[:, None], known.pooled(x) != y, groups_N=a)
    assert found.share_K.tolist() == [1, 0]
    assert np.isfinite([found.rationality, found.envy]).all()
