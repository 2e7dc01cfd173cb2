import gc
import sys

# Imports make objects by the ten thousand that live to the end; looking through them for cycles costs 5 ms a command.
gc.set_threshold(100_000)
# What is checked while a job runs must not keep the engine waiting: by default a thread holds the others up for 5 ms.
sys.setswitchinterval(0.0005)

from runner.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
