"""What can be judged: operators, PPO from scratch, controls and baselines."""
