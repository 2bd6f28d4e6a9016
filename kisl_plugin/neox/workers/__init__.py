"""The scripts that DeepSpeed's launcher starts: it takes files, not modules."""
