"""DeepSpeed's launcher starts this file in every process of `deepy.py generate`."""

from kisl_plugin.neox.worker import run

if __name__ == "__main__":
    run("generate.py")
