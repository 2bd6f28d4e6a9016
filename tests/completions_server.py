"""A local server of the OpenAI completions protocol over a tiny torch model: one prompt at a time, no padding.

Only what a client needs that asks for log-likelihoods: `echo`, `logprobs` and one generated token.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

Prompt = str | list[int]
PATH = "/v1/completions"


@dataclass
class Served:
    """A model behind `base_url`; `requests` holds the body of every request that it answered."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)


class Completions:
    """Answers to the body of one request: the prompts one after another, as in the protocol's reference."""

    def __init__(self, folder: Path, *, echoes: bool) -> None:
        self._echoes = echoes
        # As servers do, a text prompt gets the special tokens that the tokenizer puts before a text.
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._longest = self._model.config.max_position_embeddings
        self._one_at_a_time = Lock()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if (body["echo"], body["max_tokens"], body["temperature"]) != (True, 1, 0):
            raise ValueError("only echo with one greedy token is served")
        with self._one_at_a_time:
            choices = [self._choice(i, prompt, body["logprobs"]) for i, prompt in enumerate(_prompts(body["prompt"]))]
        return {"object": "text_completion", "model": body["model"], "choices": choices}

    def _choice(self, index: int, prompt: Prompt, logprobs: int) -> dict[str, Any]:
        ids = self._tokenizer.encode(prompt).ids if isinstance(prompt, str) else prompt
        if len(ids) + 1 > self._longest:
            raise ValueError(f"the prompt has {len(ids)} tokens and one is generated; at most {self._longest}")
        with torch.no_grad():
            logs = torch.log_softmax(self._model(torch.tensor([ids])).logits[0], dim=-1)
        ids = [*ids, int(logs[-1].argmax())]
        tokens = [self._tokenizer.id_to_token(token) for token in ids]
        chosen = [float(row[token]) for row, token in zip(logs, ids[1:], strict=True)]
        best = [self._best(row, logprobs) for row in logs]
        scores = {"tokens": tokens, "token_logprobs": [None, *chosen], "top_logprobs": [None, *best]}
        text = self._tokenizer.decode(ids)
        if not self._echoes:
            scores, text = {name: values[-1:] for name, values in scores.items()}, self._tokenizer.decode(ids[-1:])
        return {"index": index, "text": text, "finish_reason": "length", "logprobs": scores}

    def _best(self, row: torch.Tensor, count: int) -> dict[str, float]:
        values, ids = row.topk(count)
        return {self._tokenizer.id_to_token(int(i)): float(value) for i, value in zip(ids, values, strict=True)}


def _prompts(given: Any) -> list[Prompt]:
    """The protocol's four forms of a prompt: a text, token ids, or a list of either."""
    single = isinstance(given, str) or isinstance(given[0], int)
    return [given] if single else list(given)


@contextmanager
def serve(folder: Path, *, echoes: bool = True) -> Iterator[Served]:
    """The model in `folder`, served on a free port until the block ends.

    Without `echoes` it answers, as some servers do, with the generated token only.
    """
    model = Completions(folder, echoes=echoes)
    served = Served("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != PATH:
                return self._reply(404, {"error": {"message": f"{self.path} is not served"}})
            served.requests.append(body)
            try:
                return self._reply(200, model.answer(body))
            except (KeyError, ValueError) as error:
                return self._reply(400, {"error": {"message": str(error)}})

        def do_GET(self) -> None:
            self._reply(404, {"error": {"message": f"{self.path} is not served"}})

        def _reply(self, status: int, content: dict[str, Any]) -> None:
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests print what they need themselves."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.base_url = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def served_by(server: Served, folder: Path, **changes: Any) -> dict[str, Any]:
    """What to pass to `ask` for a model behind the completions protocol."""
    arguments = {"model": "served", "base_url": server.base_url, "tokenizer": str(folder), "max_length": 128}
    arguments |= {"tokenizer_backend": "huggingface", **changes}
    return {"model": "local-completions", "model_args": arguments, "metadata": {"run_card": str(folder)}}
