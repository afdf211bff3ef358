# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---
# %% [markdown]
# # Improve your own policy
#
# This is a notebook in jupytext's percent format: open it with Jupyter and jupytext, or run it with Python.
#
# You have a policy of your own make, and episodes of it. An operator makes a better policy of them, by inference alone.
# Here the policy is a hand-written controller that always goes the same way. The problem is the sparse point robot: a
# place on a half circle is hidden, and rewarded only within 0.2 m of it.

# %%
import gymnasium
import numpy as np

import metaimprove as mi
import metaimprove.adapters.gymnasium  # registers the families

operator = mi.load_operator('point_goal_sparse_h20')
card = mi.zoo_card('point_goal_sparse_h20')
print(card['command'])
print('held-out mean score after 8 episodes:', card['normalised_return']['mean'][8])

# %% [markdown]
# ## Your policy, and what it experiences

# %%
env = gymnasium.make('metaimprove/PointGoalSparseH20-v0')


def up(observation, rng):
  """Goes up, with some noise."""
  return np.clip([0.1, 0.8] + 0.2 * rng.standard_normal(2), -1, 1).astype(np.float32)


def play(policy, rng, seed=None):
  """One episode of a policy, as plain arrays."""
  observation, _ = env.reset(seed=seed)
  episode, over = {'observations': [observation], 'actions': [], 'rewards': []}, False
  while not over:
    action = policy(observation, rng)
    observation, reward, terminated, truncated, _ = env.step(action)
    episode['observations'].append(observation)
    episode['actions'].append(action)
    episode['rewards'].append(reward)
    over = terminated or truncated
  return episode


rng = np.random.default_rng(0)
first = play(up, rng, seed=1)
print('the hidden place is at', np.asarray(env.unwrapped.task.goal), 'and the return', sum(first['rewards']))

# %% [markdown]
# ## Improve it again and again
#
# Of a black box only the actions are read, so it is given as `None`. What comes back is a policy in numpy. It acts, and
# its own episode is read beside the earlier ones. While nothing was met, the operator is asked to explore.

# %%
before, policy, episode = [], None, first
returns = [sum(first['rewards'])]
for _ in range(10):
  better = mi.improve(operator, policy, [episode], before=before)
  before.append((policy, [episode]))
  policy, episode = better, play(better, rng)
  returns.append(sum(episode['rewards']))
print(np.round(returns, 1))

# %% [markdown]
# ## Take it away
#
# The result is an ordinary multilayer perceptron. It goes to where there is no JAX.

# %%
policy.to_numpy('export')
policy.save('export/policy.safetensors')
print(mi.load_policy('export/policy.safetensors')(np.zeros(2)))
