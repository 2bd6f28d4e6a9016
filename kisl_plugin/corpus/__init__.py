"""From text files to a tokenizer, and to GPT-NeoX's .bin/.idx without the facts under test."""
