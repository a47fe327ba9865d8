"""`python -m purerl`: the same as the command `purerl`."""

from purerl.cli.main import main

if __name__ == "__main__":
    main()
