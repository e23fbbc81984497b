"""Structural causal models: the graph, interventions, and worlds checked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.fairness.scm import SCM, coin, normal, uniform


def chain() -> SCM:
    """A -> X -> Y, and U -> X, V -> Y."""
    return SCM(
        {"A": coin(), "U": normal(2), "V": uniform()},
        {
            "Y": lambda X, V: X.sum(1) + V,
            "X": lambda A, U: 3 * A[:, None] + U,
            "Z": lambda V: 2 * V,
        },
    )


def people(n: int = 5):
    return chain().sample(n, seed=0)


def test_equations_may_stand_in_any_order():
    order = chain().order
    assert order.index("X") < order.index("Y")
    assert set(order) == {"A", "U", "V", "X", "Y", "Z"}


def test_parents_and_descendants_follow_the_argument_names():
    scm = chain()
    assert scm.parents("X") == ("A", "U")
    assert scm.parents("A") == ()
    assert set(scm.descendants("A")) == {"X", "Y"}
    assert set(scm.descendants("V")) == {"Y", "Z"}
    assert scm.descendants("Y") == ()


def test_solving_is_what_the_equations_say():
    u = people()
    values = chain().solve(u)
    torch.testing.assert_close(values["Y"], 6 * u["A"] + u["U"].sum(1) + u["V"])
    assert values["A"] is u["A"]


def test_the_same_seed_draws_the_same_people():
    first, again, other = (chain().sample(50, seed=seed)["U"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_intervention_cuts_the_parents_and_leaves_the_old_model():
    scm, u = chain(), people()
    done = scm.do(X=torch.ones(5, 2), Z=7.0).solve(u)
    torch.testing.assert_close(done["Y"], 2 + u["V"])
    assert done["Z"].tolist() == [7.0] * 5
    assert scm.parents("X") == ("A", "U")
    assert scm.do(X=0.0).parents("X") == ()


def test_an_intervention_may_be_another_equation_or_a_cause():
    scm, u = chain(), people()
    torch.testing.assert_close(scm.do(Z=lambda A, V: A + V).solve(u)["Z"], u["A"] + u["V"])
    everybody = scm.do(A=1.0)
    assert "A" not in everybody.exogenous
    torch.testing.assert_close(everybody.solve(u)["X"], 3 + u["U"])


@given(kept=st.sampled_from([0.0, 1.0]), other=st.sampled_from([0.0, 1.0]))
def test_a_split_cause_reaches_each_child_by_its_own_copy(kept, other):
    scm = SCM(
        {"A": coin(), "U": normal()},
        {"X": lambda A, U: 2 * A + U, "W": lambda A: 5 * A, "Y": lambda X, W: X + W},
    ).split("A", keep=("W",))
    u = {"A": torch.tensor([other]), "A_kept": torch.tensor([kept]), "U": torch.tensor([0.5])}
    assert float(scm.solve(u)["Y"]) == 2 * other + 0.5 + 5 * kept
    assert scm.descendants("A") == ("X", "Y")
    assert set(scm.descendants("A_kept")) == {"W", "Y"}


def test_a_split_survives_an_intervention_elsewhere_and_not_on_the_child():
    scm = chain().split("A", keep=("X",))
    assert scm.do(Z=0.0).parents("X") == ("A_kept", "U")
    assert scm.do(X=lambda A, U: U).parents("X") == ("A", "U")


@pytest.mark.parametrize(
    ("exogenous", "equations", "why"),
    [
        ({"A": coin()}, {"Y": lambda B: B}, r"without an origin: \['B'\]"),
        ({"A": coin(), "Y": coin()}, {"Y": lambda A: A}, r"with two: \['Y'\]"),
        ({"A": coin()}, {"X": lambda Y: Y, "Y": lambda X: X}, "cycle"),
    ],
)
def test_what_is_no_graph_is_refused(exogenous, equations, why):
    with pytest.raises(ValueError, match=why):
        SCM(exogenous, equations)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"V": None}, r"no values for \['V'\]"),
        ({"V": torch.zeros(3)}, "numbers of people"),
        ({"V": torch.full((5,), float("nan"))}, r"\['V'\] hold NaN"),
        ({"A": torch.zeros(0), "U": torch.zeros(0, 2), "V": torch.zeros(0)}, "one or more"),
    ],
)
def test_people_who_do_not_fit_are_refused(change, why):
    u = {name: value for name, value in {**people(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=why):
        chain().solve(u)


def test_an_equation_must_keep_one_row_a_person():
    scm = SCM({"A": coin()}, {"Y": lambda A: A[:2]})
    with pytest.raises(ValueError, match="2 rows for 5 people"):
        scm.solve({"A": torch.zeros(5)})


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="no variable 'B'; the model has"):
        chain().do(B=1.0)
    with pytest.raises(ValueError, match="no variable 'B'"):
        chain().descendants("B")
    with pytest.raises(ValueError, match="n is 0"):
        chain().sample(0, seed=0)
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        coin(1.5)


@pytest.mark.parametrize(("name", "keep"), [("X", ("Y",)), ("A", ("Y",)), ("A", ())])
def test_only_a_cause_can_be_split_and_only_for_its_children(name, keep):
    with pytest.raises(ValueError, match="cannot split"):
        chain().split(name, keep=keep)


def test_draws_have_the_asked_distribution():
    dice = torch.Generator().manual_seed(0)
    assert uniform(low=2.0, high=4.0)(4000, dice).mean().item() == pytest.approx(3.0, abs=0.05)
    assert normal(mean=-1.0, sd=2.0)(4000, dice).std().item() == pytest.approx(2.0, abs=0.1)
    drawn = coin(0.25, values=(1.0, 2.0))(4000, dice)
    assert set(drawn.tolist()) == {1.0, 2.0}
    assert (drawn == 2).double().mean().item() == pytest.approx(0.25, abs=0.03)
