"""Where better policies come from: ordinary improvers whose checkpoints become improvement histories."""
