"""The whole loop on one machine: text, tokenizer, runs at many F, probe, fit, and a page to read."""
