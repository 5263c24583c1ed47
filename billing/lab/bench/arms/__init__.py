"""What the consumers are compared with, each a process of its own: `python -m billing.lab.bench.arms NAME TASK`."""
