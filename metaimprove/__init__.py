"""Learned policy improvement operators: from a policy's experience to a better policy, by inference alone.

The public names below are imported when they are first used, so that `import metaimprove` costs next to nothing.
"""

import importlib

__version__ = '0.1.0'

_HOMES = {
  'BEST': 'metaimprove.asks.steps',
  'Curve': 'metaimprove.iteration',
  'DamagedDataError': 'metaimprove.errors',
  'EvaluationSettings': 'metaimprove.evaluation.evaluate',
  'EvolutionSettings': 'metaimprove.improvers.evolution',
  'Goal': 'metaimprove.tasks.goal',
  'History': 'metaimprove.histories.storage',
  'ImitationSettings': 'metaimprove.improvers.demonstrations',
  'IncompatibleError': 'metaimprove.errors',
  'MetaImproveError': 'metaimprove.errors',
  'NonFiniteSimulationError': 'metaimprove.errors',
  'Operator': 'metaimprove.operators.operator',
  'OperatorConfig': 'metaimprove.operators.operator',
  'PPOSettings': 'metaimprove.improvers.ppo',
  'Policy': 'metaimprove.policies',
  'Range': 'metaimprove.tasks.family',
  'Source': 'metaimprove.improvers.source',
  'Task': 'metaimprove.types',
  'TaskFamily': 'metaimprove.tasks.family',
  'TrainingSettings': 'metaimprove.training.loop',
  'Trajectory': 'metaimprove.types',
  'UnknownNameError': 'metaimprove.errors',
  'backends_of': 'metaimprove.tasks.registry',
  'check_ladder': 'metaimprove.improvers.noise_ladder',
  'collect': 'metaimprove.histories.collect',
  'demonstrations': 'metaimprove.improvers.demonstrations',
  'episode_return': 'metaimprove.types',
  'evaluate': 'metaimprove.evaluation.evaluate',
  'evolution': 'metaimprove.improvers.evolution',
  'family_names': 'metaimprove.tasks.registry',
  'from_brax_env': 'metaimprove.tasks.from_brax',
  'imitation_gap': 'metaimprove.improvers.demonstrations',
  'independent_ppo': 'metaimprove.improvers.independent_ppo',
  'iterate': 'metaimprove.iteration',
  'ladder_report': 'metaimprove.improvers.noise_ladder',
  'load_dataset': 'metaimprove.histories.dataset',
  'load_learning': 'metaimprove.improvers.run',
  'load_operator': 'metaimprove.operators.checkpoints',
  'logged_demonstrations': 'metaimprove.improvers.demonstrations',
  'make_card': 'metaimprove.histories.card',
  'make_family': 'metaimprove.tasks.registry',
  'make_operator': 'metaimprove.operators.operator',
  'make_policy': 'metaimprove.policies',
  'merge': 'metaimprove.histories.merge',
  'noise_ladder': 'metaimprove.improvers.noise_ladder',
  'one_of': 'metaimprove.improvers.noise_ladder',
  'rollout': 'metaimprove.rollouts',
  'sample_tasks': 'metaimprove.tasks.splits',
  'save_operator': 'metaimprove.operators.checkpoints',
  'task_conditioned_ppo': 'metaimprove.improvers.task_conditioned_ppo',
  'train': 'metaimprove.training.loop',
  'unroll': 'metaimprove.rollouts',
}

__all__ = sorted(_HOMES)


def __getattr__(name):
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(_HOMES[name]), name)
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *_HOMES})
