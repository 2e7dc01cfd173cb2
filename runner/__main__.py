import gc

# Imports make objects by the ten thousand that live to the end; looking through them for cycles costs 5 ms a command.
gc.set_threshold(100_000)

from runner.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
