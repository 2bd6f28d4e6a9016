"""DeepSpeed's launcher starts this file in every process of `deepy.py eval`."""

from kisl_plugin.neox.worker import run

if __name__ == "__main__":
    run("eval.py")
