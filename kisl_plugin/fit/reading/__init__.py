"""lm-eval results and tables → observations."""
