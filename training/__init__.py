"""The one training loop and what it stands on: order, prefetching, ranks, schedule, EMA, checkpoints, log."""
