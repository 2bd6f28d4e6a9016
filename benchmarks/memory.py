"""The speed that keeping freed memory gives on a CPU: training steps of the demo's model with and without it, in turn.

    python benchmarks/memory.py

Each measurement is a process of its own, since malloc's settings cannot be taken back.
"""

import resource
import statistics
import subprocess
import sys
import time

ROWS, TOKENS, STEPS = 8, 128, 120


def steps(keep: bool) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kisl_plugin.local.training import keep_freed_memory

    torch.set_num_threads(2)
    if keep:
        keep_freed_memory()
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=4096, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(0, 4096, (ROWS, TOKENS + 1))
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    print(ROWS * TOKENS / statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


def main() -> None:
    speeds: dict[str, list[float]] = {"returned": [], "kept": []}
    for _ in range(3):
        for name in speeds:
            run = [sys.executable, __file__, name]
            out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
            speeds[name].append(float(out[0]))
            print(f"{name:>10}: {float(out[0]):>8,.0f} tokens/s, {int(out[1]):>9,} page faults")
    ratio = statistics.median(speeds["kept"]) / statistics.median(speeds["returned"])
    print(f"kept / returned: {ratio:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        steps(sys.argv[1] == "kept")
    else:
        main()
