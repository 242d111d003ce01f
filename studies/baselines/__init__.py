"""Classical and earlier learned methods for the same jobs, which the studies compare with."""
