# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---
# %% [markdown]
# # A family of your own
#
# This is a notebook in jupytext's percent format: open it with Jupyter and jupytext, or run it with Python.
#
# A family is a robot, a distribution of hidden goals, and what is randomised. Any `brax.envs.Env` becomes one. Then PPO
# that is told the task makes improvement histories, and an operator learns from them.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from brax import envs

import metaimprove as mi

# %% [markdown]
# ## The robot: a sledge with friction that glides on ice

# %%
class Sledge(envs.Env):
  """Observes its place and its speed; its action is a push."""

  observation_size, action_size, backend = 2, 1, 'none'

  def reset(self, rng):
    zero = jnp.zeros(())
    return envs.State(pipeline_state=None, obs=0.1 * jax.random.normal(rng, (2,)), reward=zero, done=zero)

  def step(self, state, action):
    place, speed = state.obs
    speed = 0.95 * speed + 0.1 * action[0]
    return state.replace(obs=jnp.stack([place + 0.1 * speed, speed]))


# %% [markdown]
# ## The task: glide at a hidden speed, with pushes that come late and with noise

# %%
family = mi.from_brax_env(
  Sledge(), name='sledge', episode_length=50, dynamics=('action_delay', 'action_noise'),
  goal=mi.Goal(
    sample=lambda key: jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0),
    describe=lambda goal: f'glide at {float(goal[0]):.1f}',
  ),
  reward=lambda goal, before, action, after: -jnp.abs(after.obs[1] - goal[0]),
)
print(family.describe(family.sample(jax.random.key(0))))

# %% [markdown]
# ## Histories, and an operator that learns from them

# %%
source = mi.task_conditioned_ppo(family, mi.PPOSettings(num_envs=64, learning_rate=3e-3), num_updates=40)
mi.collect('runs/sledge/histories', family, [(source, 64)], seed=0, num_checkpoints=6, shard_size=64)
dataset = mi.load_dataset('runs/sledge/histories', family)
print('mean returns of the levels:', np.round(dataset.returns.mean(axis=0), 1))

# %%
operator = mi.make_operator(mi.OperatorConfig.of(family))
play = mi.make_play(family, operator.policy, num_episodes=2)
settings = mi.TrainingSettings(num_steps=200, round_tasks=32, num_validation=8)
operator_params = mi.train(operator, play, dataset, settings, seed=0, folder='runs/sledge/training')
mi.save_operator('runs/sledge/operator', operator, operator_params)

# %% [markdown]
# ## Held-out tasks: random policies, improved by inference alone

# %%
tasks = mi.sample_tasks(family, seed=0, num_tasks=16, split='heldout')
params = jax.vmap(operator.policy.init)(jax.random.split(jax.random.key(1), 16))
improve = mi.make_improve(operator, operator_params, mi.ask(steps='best'))
remember, returns = mi.make_remember(operator), []
for iterate in mi.iterate(improve, remember, play, params, tasks, jax.random.key(2), num_applications=4):
  returns.append(float(mi.mean_return(iterate.trajectory).mean()))
print('mean returns after 0 to 4 applications:', np.round(returns, 1))

# %% [markdown]
# ## The same as a score, with intervals if you like
#
# 0 is the initial random policy of a task, 1 the policy that is told everything of it.

# %%
trained_on = mi.sample_tasks(family, 0, 64, 'train')
learning = mi.learning_folder('runs/sledge/histories', source.name, seed=0)
last = mi.load_learning(source, trained_on, learning).snapshots[-1]
method = mi.operator_method(
  operator, operator_params, play, ask=mi.ask(steps='best'), num_applications=4, num_episodes=2
)
evaluation = mi.evaluate(
  [method], family, initial=mi.random_policies(operator.policy, play, 2),
  references=[mi.told_everything(source, last, play, 2)], seed=0, num_tasks=16, folder='runs/sledge/evaluation',
)
print(evaluation.scores('heldout', 'operator').mean(axis=1))
