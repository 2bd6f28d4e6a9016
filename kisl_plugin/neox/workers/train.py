"""DeepSpeed's launcher starts this file in every process of `deepy.py train`."""

from kisl_plugin.neox.worker import run

if __name__ == "__main__":
    run("train.py")
