"""The beta distribution and Student's t against SciPy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from tidemill.stats.student import beta_cdf, beta_quantile, student_quantile, student_tail

SHAPES = st.floats(0.05, 1e6)


@given(x=st.floats(0, 1), a=SHAPES, b=SHAPES)
def test_the_beta_distribution_is_the_reference_s(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(float(reference.beta.cdf(x, a, b)), abs=1e-8)


@pytest.mark.parametrize(("a", "b"), [(0.5, 3), (1, 1), (3, 400), (40_000, 960_000)])
@pytest.mark.parametrize("p", [0.005, 0.025, 0.5, 0.975])
def test_a_quantile_of_it_is_the_reference_s(p: float, a: float, b: float) -> None:
    assert beta_quantile(p, a, b) == pytest.approx(float(reference.beta.ppf(p, a, b)), rel=1e-6)


@given(t=st.floats(-40, 40), degrees=st.floats(0.5, 1e6))
def test_a_tail_of_student_s_t_is_the_reference_s(t: float, degrees: float) -> None:
    assert student_tail(t, degrees) == pytest.approx(float(reference.t.sf(t, degrees)), abs=1e-8)


@pytest.mark.parametrize("degrees", [1, 7, 19.4, 1e5])
@pytest.mark.parametrize("tail", [0.0005, 0.025, 0.3])
def test_a_quantile_of_student_s_t_is_the_reference_s(tail: float, degrees: float) -> None:
    assert student_quantile(tail, degrees) == pytest.approx(float(reference.t.isf(tail, degrees)), rel=1e-6)
