"""Whether the in-context baselines are what their papers describe: both in the dark room, on goals never trained on.

  python -m experiments.benchmark_darkroom

Algorithm Distillation learns from histories of Q-learning, the Decision-Pretrained Transformer from random transitions
with optimal actions; the models are those of the other benchmarks, with a head for discrete actions. Then they act for
many episodes on goals of which there were no histories, with nothing but what they remember; so does Q-learning itself,
and an agent that acts at random. See `metaimprove.methods.in_context.darkroom`.

It prints a table and writes rows and a picture. Can be stopped at any moment; run again, it goes on where it was.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.evaluation.metrics import interval_of
from metaimprove.methods.in_context import algorithm_distillation, darkroom, heads
from metaimprove.methods.in_context.acting import Model, make_play_agent
from metaimprove.methods.in_context.causal import Causal
from metaimprove.methods.in_context.decision_pretrained import DecisionPretrained
from metaimprove.methods.in_context.sequences import prefetched
from metaimprove.rng import generator, stream
from metaimprove.rollouts import Agent
from metaimprove.training.fit import FitSettings, fit
from metaimprove.types import Progress, Trajectory, episode_return

FLAGS = flags.FLAGS
TITLES = {
  'algorithm_distillation': 'Algorithm Distillation', 'decision_pretrained': 'Decision-Pretrained Transformer',
  'source': 'Q-learning, the source', 'random': 'random actions',
}
HELD_OUT = 16
"""Of the 81 goals."""
SHOWN = (1, 2, 3, 5, 10, 20, 30, 40, 60, 80)
"""Episodes of the table."""
_QUERIES = 32

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/darkroom', 'For the states of the trainings.')
  flags.DEFINE_string('json', 'docs/results/darkroom.json', 'Where the rows go.')
  flags.DEFINE_string('picture', 'docs/results/darkroom.png', 'Where the picture goes.')
  flags.DEFINE_integer('seed', 0, 'Of goals, histories, trainings and episodes.')
  flags.DEFINE_integer('num_learners', 64, 'Histories of each goal that is trained on.', 1)
  flags.DEFINE_integer('history_length', 80, 'Episodes of each.', 2)
  flags.DEFINE_integer('num_remembered', 8, 'Episodes in a context.', 2)
  flags.DEFINE_integer('num_steps', 1500, 'Gradient steps of each training.', 1)
  flags.DEFINE_integer('batch_size', 32, 'Contexts in each.', 1)
  flags.DEFINE_float('learning_rate', 2e-3, 'At most.', 0.0)
  flags.DEFINE_integer('width', 64, 'Of tokens.', 1)
  flags.DEFINE_integer('num_episodes', 80, 'In a row, on each goal.', 1)
  flags.DEFINE_integer('repeats', 8, 'Agents on each goal.', 1)


@dataclasses.dataclass(frozen=True)
class Row:
  """What a method reaches in an episode on the goals that were held out.

  Attributes:
    method: see `TITLES`.
    episode: the first one is 1.
    mean_return: over goals.
    low, high: 95% interval over goals.
    optimal_return: the highest possible, mean over goals.
    goals: how many.
    seed: of everything.
    command: that writes it.
  """

  method: str
  episode: int
  mean_return: float
  low: float
  high: float
  optimal_return: float
  goals: int
  seed: int
  command: str


def split_goals(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Cells that are goals in training, and those that are held out."""
  order = generator(seed, 'goals').permutation(len(darkroom.CELLS))
  return order[HELD_OUT:], order[:HELD_OUT]


def distillation(goals: np.ndarray) -> tuple[Causal, Agent, Callable[[np.random.Generator], Any]]:
  """Model, agent and batches of Algorithm Distillation."""
  family, num, length = darkroom.dark_room(), FLAGS.num_remembered, FLAGS.history_length
  model = Causal(
    head=heads.categorical(family.action_size), observation_size=family.observation_size,
    action_size=family.action_size, episode_length=family.episode_length, num_episodes=num, width=FLAGS.width,
  )
  histories = darkroom.q_learning(
    np.repeat(goals, FLAGS.num_learners), stream(FLAGS.seed, 'histories'), num_episodes=length
  )

  def draw(rng: np.random.Generator) -> Trajectory:
    chosen = rng.choice(len(histories.goal), size=FLAGS.batch_size)
    return algorithm_distillation.draw_windows(histories.read, chosen, length, num, rng)

  return model, algorithm_distillation.distilled_agent(model, darkroom.STATISTICS), draw


def pretrained(goals: np.ndarray) -> tuple[DecisionPretrained, Agent, Callable[[np.random.Generator], Any]]:
  """Model, agent and batches of the Decision-Pretrained Transformer."""
  family = darkroom.dark_room()
  model = DecisionPretrained(
    head=heads.categorical(family.action_size), observation_size=family.observation_size,
    action_size=family.action_size, episode_length=family.episode_length, num_episodes=FLAGS.num_remembered,
    num_steps=family.episode_length, width=FLAGS.width,
  )
  draw = functools.partial(darkroom.random_questions, goals, FLAGS.batch_size, FLAGS.num_remembered, _QUERIES)
  return model, model.agent(darkroom.STATISTICS), draw


def returns_of_agent(
  name: str, model: Model, agent: Agent, draw: Callable[[np.random.Generator], Any], goals: np.ndarray,
  folder: pathlib.Path, progress: Progress,
) -> np.ndarray:
  """[B, E] returns on goals [B] of an agent, trained if it was not."""
  settings = FitSettings(
    num_steps=FLAGS.num_steps, batch_size=FLAGS.batch_size, learning_rate=FLAGS.learning_rate
  )
  made_with = {
    name: FLAGS[name].value for name in ('num_learners', 'history_length', 'num_remembered', 'width')
  }
  params = fit(
    model.init, functools.partial(model.loss, darkroom.STATISTICS), functools.partial(prefetched, draw, FLAGS.seed),
    settings, seed=FLAGS.seed, folder=folder / name, made_with=made_with, stage=f'train: {TITLES[name]}',
    progress=progress,
  )
  play = make_play_agent(darkroom.dark_room(), agent, num_episodes=FLAGS.num_episodes)
  tasks = darkroom.tasks_of(darkroom.CELLS[goals])
  return np.asarray(episode_return(play(params, tasks, stream(FLAGS.seed, f'episodes of {name}'))))


def random_returns(goals: np.ndarray) -> np.ndarray:
  """[B, E] returns of random actions on goals [B]."""
  def act(params, state, observation, rng_key):
    return jax.nn.one_hot(jax.random.randint(rng_key, (), 0, len(darkroom.MOVES)), len(darkroom.MOVES)), state

  agent = Agent(
    begin=lambda params: (), act=act, see=lambda params, state, transition: state,
    end_episode=lambda params, state: state,
  )
  play = make_play_agent(darkroom.dark_room(), agent, num_episodes=FLAGS.num_episodes)
  tasks = darkroom.tasks_of(darkroom.CELLS[goals])
  return np.asarray(episode_return(play((), tasks, stream(FLAGS.seed, 'random episodes'))))


def judge(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """{method: [goals, E]} returns on goals that were held out, means over agents."""
  trained, held_out = split_goals(FLAGS.seed)
  goals = np.repeat(held_out, FLAGS.repeats)
  found = {}
  with console.stage(folder, 'darkroom') as progress:
    for name, make in (('algorithm_distillation', distillation), ('decision_pretrained', pretrained)):
      found[name] = returns_of_agent(name, *make(trained), goals, folder, progress)
  found['source'] = darkroom.q_learning(
    goals, stream(FLAGS.seed, 'source on held-out goals'), num_episodes=FLAGS.num_episodes
  ).returns()
  found['random'] = random_returns(goals)
  return {name: returns.reshape(HELD_OUT, FLAGS.repeats, -1).mean(axis=1) for name, returns in found.items()}


def rows_of(found: Mapping[str, np.ndarray], optimal: float) -> list[Row]:
  """A row for each method and episode."""
  command = console.command_for(**{
    name: FLAGS[name].value for name in (
      'seed', 'num_learners', 'history_length', 'num_remembered', 'num_steps', 'batch_size', 'learning_rate', 'width',
      'num_episodes', 'repeats',
    ) if FLAGS[name].present
  })
  rows = []
  for name, returns in found.items():
    for episode, values in enumerate(returns.T):
      low, high = interval_of(lambda strata: float(np.mean(strata[0])), [values])
      rows.append(Row(
        method=name, episode=episode + 1, mean_return=round(float(values.mean()), 3), low=round(low, 3),
        high=round(high, 3), optimal_return=round(optimal, 3), goals=len(values), seed=FLAGS.seed, command=command,
      ))
  return rows


def show(rows: list[Row]) -> None:
  """The rows of some episodes as a table."""
  names, last = list(dict.fromkeys(row.method for row in rows)), max(row.episode for row in rows)
  by_place = {(row.method, row.episode): row for row in rows}
  print(f'Mean return on {rows[0].goals} held-out goals, and its 95% interval; optimal {rows[0].optimal_return:.1f}')
  print('| episode | ' + ' | '.join(TITLES[name] for name in names) + ' |')
  print('|' + '---|' * (1 + len(names)))
  for episode in dict.fromkeys(min(episode, last) for episode in SHOWN):
    cells = (by_place[name, episode] for name in names)
    print(f'| {episode} | ' + ' | '.join(f'{c.mean_return:.1f} ({c.low:.1f}, {c.high:.1f})' for c in cells) + ' |')


def draw_curves(rows: list[Row], path: pathlib.Path) -> None:
  """Mean return against episodes."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 4.4), layout='constrained')
  axes = figure.add_subplot()
  for name, colour in zip(TITLES, ('#1b6ca8', '#c0392b', '#7f8c8d', '#bdc3c7')):
    own = [row for row in rows if row.method == name]
    episodes = [row.episode for row in own]
    axes.plot(episodes, [row.mean_return for row in own], color=colour, label=TITLES[name])
    axes.fill_between(episodes, [row.low for row in own], [row.high for row in own], color=colour, alpha=0.15, lw=0)
  axes.axhline(rows[0].optimal_return, color='#2c3e50', lw=0.8, ls='--', label='optimal')
  axes.set(xlabel='episode', ylabel='mean return', title='Dark room, goals that were held out', ylim=(0, None))
  figure.legend(loc='outside lower center', ncols=3, frameon=False, fontsize=8)
  files.make_folder(path.parent)
  figure.savefig(path, dpi=110)


def main() -> None:
  """Trains what is missing, judges, and writes."""
  folder = pathlib.Path(FLAGS.folder) / f'seed_{FLAGS.seed}'
  _, held_out = split_goals(FLAGS.seed)
  rows = rows_of(judge(folder), float(darkroom.optimal_return(darkroom.CELLS[held_out]).mean()))
  files.write_json(FLAGS.json, [dataclasses.asdict(row) for row in rows])
  draw_curves(rows, pathlib.Path(FLAGS.picture))
  show(rows)
  print(f'Rows: {FLAGS.json}; picture: {FLAGS.picture}')


if __name__ == '__main__':
  console.launch(main)
