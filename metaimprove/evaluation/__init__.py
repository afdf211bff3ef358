"""How operators are judged: held-out tasks, normalised returns with intervals, PPO from scratch beside them."""
