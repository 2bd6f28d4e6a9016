"""The grid of GPT-NeoX YAMLs: one table of model shapes (`models`), one of training settings (`training`)."""
