"""Where better policies come from: ordinary improvers whose checkpoints become improvement histories.

| file | improves by | learners |
|---|---|---|
| `task_conditioned_ppo` | PPO that is told the task; checkpoints are folded for every task | one for all tasks |
| `domain_randomised_ppo` | PPO for the whole distribution that is told nothing | one for all tasks |
| `independent_ppo` | PPO from scratch | one a task |
| `evolution` | evolution strategies | one a task |
| `noise_ladder` | taking noise away from policies of any quality | one a task |
| `demonstrations` | imitating what a user's policy does, or a log | one a task |

To add a source
---------------
Write a file with a function that returns a `source.Source`, a bundle of pure functions of ONE task:

    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    from metaimprove import policies
    from metaimprove.improvers.source import Source
    from metaimprove.rollouts import rollout
    from metaimprove.types import mean_return

    def hill_climbing(family, num_updates, *, std, num_episodes, hidden_sizes=policies.HIDDEN_SIZES):
      policy = policies.make_policy(family.observation_size, family.action_size, hidden_sizes)

      def measure(params, task, rng_key):
        return mean_return(rollout(family, policy, params, task, rng_key, num_episodes=num_episodes))

      def update(params, task, rng_key):
        key_step, key_play = jax.random.split(rng_key)
        flat, unravel = ravel_pytree(params)
        candidate = unravel(flat + std * jax.random.normal(key_step, flat.shape))
        before, after = measure(params, task, key_play), measure(candidate, task, key_play)
        return jax.tree.map(lambda old, new: jnp.where(after > before, new, old), params, candidate), before

      return Source(
        name='hill_climbing', init=lambda rng_key, task: policy.init(rng_key), update=update,
        snapshot=lambda state: state, params=lambda snapshot, task: snapshot, num_updates=num_updates,
        env_steps_per_update=2 * num_episodes * family.episode_length,
        settings={'std': std, 'num_episodes': num_episodes, 'hidden_sizes': list(hidden_sizes)},
      )

`run.make_learn` does the rest: all tasks at once over all devices, checkpoints, resuming, patience; and
`histories.collect` takes it beside any others. What it relies on, and `tests/test_sources.py` checks for every source
(add yours to `SOURCES` there):

- The state is a tree of arrays, of the same shapes and types after an update as before: no Python numbers, whose weak
  types compile again, and no typed keys, which a file cannot hold. All randomness is from the key that is given.
- `update` returns the return of the policy that it was given, not of the one it makes. U updates so measure the first U
  of U + 1 snapshots; the candidates for a history's levels are chosen among those, evenly in return, and the last
  candidate is the final snapshot.
- A learner sees its own task and `data` only; `shared=True` is for one learner that serves all tasks, whose `init` and
  `update` are given None for the task.
- `params` gives an ordinary θ over observations alone (`policies.fold` takes in a normaliser and what is known of the
  task): a stored θ is all there is of a checkpoint.
- `settings` is plain data that says how it improves, `hidden_sizes` included; a folder that holds histories of the same
  name made with other settings is refused. What they cannot hold, such as a callable, needs another `name`.
- `tasks` and `data` are for sources that come with tasks of their own, such as logs.
"""
