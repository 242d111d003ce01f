"""What the studies share: how one is run, timed, summed up and shown."""
