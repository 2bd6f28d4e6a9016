"""The part of vLLM's interface that lm_eval's VLLM class uses for log-likelihoods, over a tiny torch model.

vLLM itself needs its own build of torch. Its answers are shaped as its documentation says: `prompt_logprobs` has None
for the first token, then for each token the log-probability of that token and of the likeliest one.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

VERSION = "0.8.0"


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass(frozen=True)
class SamplingParams:
    temperature: float
    prompt_logprobs: int
    max_tokens: int
    detokenize: bool


@dataclass(frozen=True)
class Logprob:
    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass(frozen=True)
class RequestOutput:
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None]


class LLM:
    """Computes in `dtype`, one prompt at a time; prompts that leave no room for a new token are refused."""

    def __init__(self, model: str, dtype: str, max_model_len: int | None, **_: Any) -> None:
        weights = "auto" if dtype == "auto" else getattr(torch, dtype)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=weights)
        length = max_model_len or self._model.config.max_position_embeddings
        settings = SimpleNamespace(max_model_len=length, dtype=self._model.dtype, model=model)
        self.llm_engine = SimpleNamespace(model_config=settings)

    def generate(
        self, prompts: Sequence[TokensPrompt], *, sampling_params: Sequence[SamplingParams], **_: Any
    ) -> list[RequestOutput]:
        for params in sampling_params:
            assert (params.temperature, params.prompt_logprobs, params.max_tokens) == (0, 1, 1)
        assert len(prompts) == len(sampling_params)
        return [self._answer(prompt["prompt_token_ids"]) for prompt in prompts]

    def _answer(self, ids: list[int]) -> RequestOutput:
        if len(ids) >= self.llm_engine.model_config.max_model_len:
            raise ValueError(f"The decoder prompt (length {len(ids)}) is longer than the maximum model length")
        with torch.no_grad():
            logs = torch.log_softmax(self._model(torch.tensor([ids])).logits[0].float(), dim=-1)
        return RequestOutput(ids, [None, *(_scores(row, token) for row, token in zip(logs, ids[1:], strict=False))])


def _scores(row: torch.Tensor, token: int) -> dict[int, Logprob]:
    rank = int((row > row[token]).sum()) + 1
    best = int(row.argmax())
    return {token: Logprob(float(row[token]), rank), best: Logprob(float(row[best]), 1)}


def install_vllm(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let `import vllm` find this stand-in, so that lm_eval's own VLLM class can be imported and run."""
    information = folder / f"vllm-{VERSION}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")
    patch.syspath_prepend(str(folder))
    engine = {"LLM": LLM, "SamplingParams": SamplingParams, "TokensPrompt": TokensPrompt}
    contents: dict[str, dict[str, Any]] = {
        "vllm": engine,
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": object},
        "vllm.tokenizers": {"get_tokenizer": _tokenizer},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        patch.setitem(sys.modules, name, module)


def _tokenizer(name: str, *, tokenizer_mode: str, **settings: Any) -> Any:
    return AutoTokenizer.from_pretrained(name, **settings)
