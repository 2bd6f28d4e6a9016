"""The one table of GPT-NeoX's keys, and the folder that a run saves to."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import (
    KEY_RULES,
    Purpose,
    Yamls,
    read_yamls,
    refuse_keys,
    unused_keys,
)

LLAMA = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "pos_emb": "rotary",
    "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False,
    "tokenizer_type": "HFTokenizer",
    "data_impl": "mmap",
}


def yamls(**changes: Any) -> Yamls:
    values = {**LLAMA, **changes}
    return Yamls(values, dict.fromkeys(values, "run.yml"), where="run.yml")


@pytest.mark.parametrize("purpose", get_args(Purpose))
def test_every_purpose_accepts_a_plain_llama_and_disabled_sections(purpose: Purpose) -> None:
    refuse_keys(yamls(), purpose)
    refuse_keys(yamls(curriculum_learning={"enabled": False}, fp16={"enabled": False}, train_data_paths=[]), purpose)
    refuse_keys(yamls(use_mup=None, rotary_pct=1.0, attention_config=[[["flash"], "all"]]), purpose)


@pytest.mark.parametrize("rule", KEY_RULES, ids=lambda rule: rule.key)
def test_every_rule_refuses_for_each_of_its_purposes_in_one_line(rule: Any) -> None:
    wrong: Any = {"enabled": True} if not isinstance(rule.default, str) else "another"
    for purpose in rule.purposes:
        if rule.key == "attention_config":
            wrong = [[["global", "local"], 2]]
        with pytest.raises(InputError) as caught:
            section, _, key = rule.key.rpartition(".")
            refuse_keys(yamls(**({section: {key: wrong}} if section else {key: wrong})), purpose)
        assert str(caught.value).startswith(f"run.yml: {rule.key} is {wrong!r}; ")
        assert str(caught.value).endswith(rule.reason)
        assert "\n" not in str(caught.value)


def test_a_key_that_is_not_given_has_the_default_of_gpt_neox() -> None:
    with pytest.raises(InputError, match=r"norm is not given, and .*default is .layernorm.; .* needs rmsnorm"):
        refuse_keys(Yamls({}), "export")
    with pytest.raises(InputError, match=r"data_impl is not given, .* needs mmap or cached"):
        refuse_keys(Yamls({}), "injection")


@pytest.mark.parametrize(("key", "value"), [("rotary_pct", True), ("moe_num_experts", True), ("norm", None)])
def test_a_value_of_another_type_is_not_equal(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{key} is {value}"):
        refuse_keys(yamls(**{key: value}), "local")


@pytest.mark.parametrize(
    "config",
    [
        [[["mamba"], 4]],
        [[["gmlp"], "all"]],
        [[["flash"], 3], [["amlp"], 1]],
        ["global", "rwkv"],
        [[["global", "sparse_fixed"], 2]],
    ],
)
def test_any_attention_but_full_attention_is_refused_in_every_nesting(config: Any) -> None:
    for purpose in ("local", "export"):
        with pytest.raises(InputError, match=r"attention_config is .* needs global or flash: in Llama each token"):
            refuse_keys(yamls(attention_config=config), purpose)


@pytest.mark.parametrize("config", [["flash", "global"], [[["flash", "global"], "all"]], [[["flash"], 1]]])
def test_full_attention_is_accepted_in_every_nesting(config: Any) -> None:
    refuse_keys(yamls(attention_config=config), "local")


@given(
    st.sampled_from(sorted({rule.key for rule in KEY_RULES})),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("enabled"), inner),
        max_leaves=5,
    ),
)
def test_any_value_is_accepted_or_refused_by_its_name(key: str, value: Any) -> None:
    for purpose in get_args(Purpose):
        try:
            refuse_keys(yamls(**{key: value}), purpose)
        except InputError as error:
            assert str(error).startswith(f"run.yml: {key} is ")


def test_keys_without_effect_are_listed_and_misspelt_ones_are_refused() -> None:
    given_keys = yamls(num_layers=2, zero_optimization={"stage": 1}, num_workers=2, use_bias_in_norms=False)
    assert unused_keys(given_keys, ["num_layers"]) == ("num_workers", "use_bias_in_norms", "zero_optimization")
    for misspelt, meant in (("num_layer", "num_layers"), ("hidden_dropuot", "hidden_dropout")):
        with pytest.raises(InputError, match=f"run.yml: {misspelt} is unknown; did you mean {meant}?"):
            unused_keys(yamls(**{misspelt: 1}), ["num_layers"])


def test_two_files_of_the_same_name_or_with_the_same_key_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "run.yml", tmp_path / "b" / "run.yml"
    second.parent.mkdir()
    first.write_text("seed: 1\n")
    second.write_text("num_layers: 1\n")
    with pytest.raises(InputError) as caught:
        read_yamls([first, second])
    assert str(caught.value).startswith(f"{second}: has the same file name as another YAML")
    other = tmp_path / "b.yml"
    other.write_text("seed: 1\n")
    with pytest.raises(InputError, match=r"b.yml: seed is also in .*run.yml"):
        read_yamls([first, other])
    first.write_text("seed: 1\noptimizer: {type: Adam, type: Adam}\nseed: 2\n")
    with pytest.raises(InputError, match=r"run.yml: not YAML \(it contains the key 'seed' 2 times"):
        read_yamls([first])


def test_a_tilde_is_the_home_folder_and_a_slash_at_the_end_of_a_path_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "run.yml").write_text("save: /runs/a/\nload: ~/a\ntrain_data_paths: [~/b, c/]\nhostfile: /x/\n")
    assert read_yamls([tmp_path / "run.yml"]).values == {
        "save": "/runs/a",
        "load": "/home/me/a",
        "train_data_paths": ["/home/me/b", "c"],
        "hostfile": "/x/",
    }


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read"), ("{", "not YAML"), ("- 1", "expected keys and values")]
)
def test_a_file_that_is_not_a_yaml_of_keys_is_named(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "run.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"run.yml: {expected}"):
        read_yamls([path])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gpt_j_tied", True),
        ("num_unique_layers", 2),
        ("sparsity_config", {"num_local_blocks": 4}),
        ("apply_query_key_layer_scaling", True),
        ("fp16_lm_cross_entropy", True),
    ],
)
def test_the_local_engine_refuses_what_would_be_another_model(key: str, value: object) -> None:
    yamls = Yamls({**{rule.key: rule.allowed[0] for rule in KEY_RULES if "local" in rule.purposes}, key: value})
    with pytest.raises(InputError, match=key):
        refuse_keys(yamls, "local")
