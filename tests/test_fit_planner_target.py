import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.predict import Target, parse_target, parse_triples

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@pytest.mark.parametrize(
    "text", ["params=7e9,tokens=2e12", "tokens=2T, params=7B", " params = 7000m , tokens = 2000b "]
)
def test_a_target_is_read_with_numbers_or_units_in_any_order(text: str) -> None:
    assert parse_target(text) == Target(7_000_000_000, 2_000_000_000_000)


def test_a_unit_means_the_whole_number() -> None:
    assert parse_target("params=1.05B,tokens=57.999884288B") == Target(1_050_000_000, 57_999_884_288)
    assert parse_target("params=7e9,tokens=2e12").compute == 6 * 7e9 * 2e12


@given(st.integers(1, 9_999), st.integers(0, 3), st.sampled_from([*UNITS]), st.integers(1, 10**18))
def test_what_was_written_is_what_is_read(digits: int, places: int, unit: str, tokens: int) -> None:
    written = f"{digits / 10**places:.{places}f}{unit}"
    exact = digits * UNITS[unit] / 10**places
    if digits * int(UNITS[unit]) % 10**places == 0:
        target = parse_target(f"params={written},tokens={tokens}")
        assert target.params == exact
        assert target.tokens == pytest.approx(tokens, rel=1e-15)
    else:
        with pytest.raises(InputError, match="expected a whole number"):
            parse_target(f"params={written},tokens={tokens}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "params"),
        ("params=7e9", "tokens is missing"),
        ("tokens=7e9", "params is missing"),
        ("params=7e9,tokens=2e12,seed=1", "'seed=1'"),
        ("N=7e9,D=2e12", "'N=7e9'"),
        ("params=7e9,params=8e9,tokens=1", "params is given twice"),
        ("params=0,tokens=2e12", "params is '0'"),
        ("params=-7e9,tokens=2e12", "params is '-7e9'"),
        ("params=nan,tokens=2e12", "params is 'nan'"),
        ("params=7e9,tokens=inf", "tokens is 'inf'"),
        ("params=7e9,tokens=1e400", "tokens is '1e400'"),
        ("params=7e9,tokens=", "tokens is ''"),
        ("params=B,tokens=1", "params is 'B'"),
        ("params=7e9B,tokens=1", "params is '7e9B'"),
        ("params=7,5e9,tokens=1", "'5e9'"),
        ("params=7e9 tokens=2e12", "params is '7e9 tokens=2e12'"),
    ],
)
def test_what_is_no_target_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_target(text)
    line = str(caught.value)
    assert said in line
    assert line.startswith("--predict ")
    assert "\n" not in line
    assert "params=7e9,tokens=2e12" in line


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_an_input_error(text: str) -> None:
    try:
        target = parse_target(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert target.params >= 1 <= target.tokens
        assert math.isfinite(target.compute)


def test_triples_are_read_as_numbers_are() -> None:
    assert [parse_triples(text) for text in ("100000", "1e5", "100K", "0.1M")] == [100_000] * 4
    for wrong in ("0", "many", "nan", "-1"):
        with pytest.raises(InputError, match=f"--triples '{wrong}'; expected"):
            parse_triples(wrong)
