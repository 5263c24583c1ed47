"""One small file per process: `python -m consumers.inflight` and so on."""
