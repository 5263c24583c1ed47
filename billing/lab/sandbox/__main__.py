"""`python -m billing.lab.sandbox`."""

from billing.lab.sandbox.cli import sandbox

if __name__ == "__main__":
    sandbox()
