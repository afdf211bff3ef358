"""As if it were somebody: agents that watch each other in turn, and one that says how another would imitate a third.

B watches an agent and then behaves as it, in a way of its own. C has watched several agents and B's imitations of them.
Then it sees another agent, D, and is asked for B's imitation of D, which it has not seen. Source: steps 1 and 2 of the
recipe in "Just Ask for Generalization" (Jang, 2021).

B is an operator asked for k = 0 whose answers are distorted. C is an operator too. It reads a memory in which the
agents and the imitations take turns, D last, and is asked for what comes next; it is trained by likelihood. Of all of
them it sees what can be seen from outside: observations, actions and rewards.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from metaimprove import asks, files, parallel, policies
from metaimprove.methods.imitation import apart, imitated, mean_action
from metaimprove.operators.memory import EMPTY, Memory, recorded_behaviour, thinned
from metaimprove.operators.operator import Operator
from metaimprove.rng import generator, stream
from metaimprove.training.examples import ANY_ANSWER, Example
from metaimprove.training.fit import FitSettings, fit
from metaimprove.training.loss import mean_loss
from metaimprove.trees import batch_size, take
from metaimprove.types import Params, Play, Progress, Task, Trajectory, episode_return, hide_outcome, silent

STAGE = 'train pretending'
"""What `Progress` is told of."""
_TURN, _GAIN, _BIAS, _TREMOR = 0.6, 0.4, 0.4, 0.5
"""How much imitators differ: deviations of an angle, of the logarithm of a gain and of a bias; and the most tremor."""


@chex.dataclass(frozen=True)
class Distortion:
  """A way of one's own in which imitations differ from what is imitated; of one imitator with A motors.

  Attributes:
    mixing: [A, A] float32, what the locations of actions before tanh are multiplied by.
    bias: [A] float32, what is then added to them.
    tremor: [] float32, what is added to all raw scales.
  """

  mixing: chex.Array
  bias: chex.Array
  tremor: chex.Array


@chex.dataclass(frozen=True)
class Scenes:
  """N imitators, each with P agents that it watched and imitated.

  Attributes:
    shown: [N, P, E, T, ...] what the agents did.
    imitated: [N, P, E, T, ...] what the imitator then did on the task of each.
    states: [N, P, S, O] the observations of both, S = 2 E T.
    answer: [N, P, S, 2A] the logits of the imitations there.
    weight: [N, P, S] float32, 1 for a step that was taken and 0 for padding.
  """

  shown: Trajectory
  imitated: Trajectory
  states: chex.Array
  answer: chex.Array
  weight: chex.Array


def draw_distortions(action_size: int, num: int, rng: np.random.Generator) -> Distortion:
  """The distortions [num, ...] of as many imitators: motors turned into each other, gains, a bias and a tremor."""
  skew = rng.normal(0.0, _TURN / np.sqrt(2), (num, action_size, action_size))
  turn = np.asarray(jax.vmap(jax.scipy.linalg.expm)(jnp.asarray(skew - np.swapaxes(skew, 1, 2))))
  gain = np.exp(rng.normal(0.0, _GAIN, (num, action_size)))
  return Distortion(
    mixing=(gain[..., None] * turn).astype(np.float32),
    bias=rng.normal(0.0, _BIAS, (num, action_size)).astype(np.float32),
    tremor=rng.uniform(0.0, _TREMOR, num).astype(np.float32),
  )


def distorted(params: Params, distortion: Distortion) -> Params:
  """The policy that does what a policy does, distorted; only the last layer changes.

  Args:
    params: θ of one policy with A actions.
    distortion: of one imitator; batch with `jax.vmap`.
  """
  last = policies.layer_names(params)[-1]
  layer, size = params[last], distortion.bias.shape[-1]
  chex.assert_shape(layer['b'], (2 * size,))

  def mixed(x):  # [..., 2A]: locations, then raw scales
    location = jnp.einsum('...j,ij->...i', x[..., :size], distortion.mixing, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([location, x[..., size:]], axis=-1)

  added = jnp.concatenate([distortion.bias, jnp.full(size, distortion.tremor)])
  return {**params, last: {'w': mixed(layer['w']), 'b': mixed(layer['b']) + added}}


def imitations(
  operator: Operator, operator_params: Any, distortion: Distortion, trajectory: Trajectory
) -> Params:
  """What imitators [B, ...] make of those whose actions they see in [B, E, T, ...]: policies [B, ...]."""
  return _all_distorted(imitated(operator, operator_params, trajectory), distortion)


_all_distorted = jax.jit(jax.vmap(distorted))


def make_scenes(
  operator: Operator, operator_params: Any, play: Play, agents: Params, tasks: Task, distortion: Distortion,
  rng_key: chex.PRNGKey,
) -> Scenes:
  """Scenes (numpy) of N imitators.

  Args:
    operator: that imitators imitate with, asked for k = 0.
    operator_params: its parameters.
    play: makes experience.
    agents: [N, P, ...] policies of the agents.
    tasks: [N, P] tasks, each agent's own.
    distortion: [N, ...] of the imitators.
    rng_key: for starts and actions.
  """
  num, places = jax.tree.leaves(agents)[0].shape[:2]
  agents, tasks = jax.tree.map(lambda x: jnp.reshape(x, (num * places, *x.shape[2:])), (agents, tasks))
  own = jax.tree.map(lambda x: jnp.repeat(x, places, axis=0), distortion)
  # Each is awaited: of several programs on several devices of a CPU that are under way one may wait for ever.
  shown = jax.device_get(hide_outcome(play(agents, tasks, stream(rng_key, 'shown'))))
  params = jax.device_get(imitations(operator, operator_params, own, shown))
  done = jax.device_get(hide_outcome(play(params, tasks, stream(rng_key, 'imitated'))))
  states, weight = (
    np.concatenate([x.reshape(num * places, -1, *x.shape[3:]) for x in both], axis=1)
    for both in ((shown.observation, done.observation), (shown.valid, done.valid))
  )
  found = Scenes(
    shown=shown, imitated=done, states=states, answer=policies.apply_numpy(params, states),
    weight=weight.astype(np.float32),
  )
  return jax.tree.map(lambda x: x.reshape(num, places, *x.shape[1:]), found)


def memory_in_turns(
  scenes: Scenes, order: np.ndarray, shown: np.ndarray, last: Trajectory, steps_kept: int
) -> Memory:
  """Memories [B, C, ...] (numpy), C = (2 W + 1) E: of each of W agents its episodes and those of its imitation, and
  then those of the last agent. The applications count whose turn it was.

  Args:
    scenes: [B, P, ...] of an imitator each.
    order: [B, W] int, which of the P agents are watched, one after the other.
    shown: [B] int, how many of them are watched, the last ones; the places of the others stay empty.
    last: [B, E, T, ...] what the last agent did.
    steps_kept: the most that is kept of an episode.
  """
  size, (num, watched) = last.reward.shape[1], order.shape
  rows, turns = np.arange(num)[:, None], 2 * watched + 1

  def in_turns(agents, imitations, final):
    pairs = np.stack([agents[rows, order], imitations[rows, order]], axis=2)  # [B, W, 2, E, ...]
    pairs = pairs.reshape(num, (turns - 1) * size, *final.shape[2:])
    return np.concatenate([pairs, final], axis=1)

  trajectory = jax.tree.map(in_turns, scenes.shown, scenes.imitated, jax.device_get(hide_outcome(last)))
  short, time = thinned(trajectory, steps_kept)
  turn = np.repeat(np.arange(turns), size)
  there = turn >= turns - 1 - 2 * np.asarray(shown)[:, None]
  return Memory(
    trajectory=short.replace(valid=short.valid & there[..., None]), behaviour=recorded_behaviour(short.action),
    time=time, episode_return=episode_return(trajectory),
    largest_reward=np.maximum(trajectory.reward.max(axis=-1), 0.0),
    application=np.broadcast_to(turn, there.shape).astype(np.int32),
    number=np.where(there, np.arange(turns * size), EMPTY).astype(np.int32),
  )


def draw_examples(scenes: Scenes, num: int, steps_kept: int, rng: np.random.Generator) -> Example:
  """Examples [num] of random imitators: one of the agents is the last one, and a random number of others was watched
  before, in a random order. The answer is the imitation of the last one."""
  imitators, places = scenes.weight.shape[:2]
  row = rng.integers(imitators, size=num)
  order = rng.permuted(np.tile(np.arange(places), (num, 1)), axis=1)
  last = row, order[:, -1]
  memory = memory_in_turns(
    take(scenes, row), order[:, :-1], rng.integers(places, size=num), take(scenes.shown, last), steps_kept
  )
  return Example(
    memory=memory, ask=asks.ask(steps=np.ones(num, int)), states=scenes.states[last], answer=scenes.answer[last],
    weight=scenes.weight[last], which_answer=np.full(num, ANY_ANSWER, np.int32),
    key_data=rng.integers(2**32, size=(num, 2), dtype=np.uint32),
  )


def learn_to_pretend(
  operator: Operator, statistics: Mapping[str, chex.Array], scenes: Scenes, settings: FitSettings, *, seed: int,
  folder: files.Path, made_with: Mapping[str, Any], progress: Progress = silent,
) -> Params:
  """Trains C on scenes of training tasks, and returns its operator parameters; a call that was stopped goes on.

  Args:
    operator: C, that understands asks for `steps` and has room for what `memory_in_turns` makes.
    statistics: of `experience_statistics`.
    scenes: what it learns from.
    settings: of the training.
    seed: of the first parameters and of what is drawn.
    folder: for the states of the training.
    made_with: plain data that determines the scenes.
    progress: told of every step.
  """
  def operator_params(network):
    return {'network': network, 'statistics': jax.tree.map(jnp.asarray, statistics)}

  def batches(first: int, last: int) -> Iterator[Example]:
    for step in range(first, last):
      yield draw_examples(
        scenes, settings.batch_size, operator.config.steps_kept, generator(seed, 'pretending', step)
      )

  network = fit(
    lambda rng_key: operator.init(rng_key, statistics)['network'],
    lambda network, batch: mean_loss(operator, operator_params(network), batch), batches, settings, seed=seed,
    folder=folder, made_with={**made_with, 'operator': dataclasses.asdict(operator.config)}, stage=STAGE,
    progress=progress,
  )
  return operator_params(network)


@functools.partial(jax.jit, static_argnames='operator')
def _next(operator: Operator, operator_params: Any, memory: Memory) -> Params:
  def following(operator_params: Any, one: Memory) -> Params:
    return operator.improve_behaviour(operator_params, one, jax.tree.map(jnp.asarray, asks.ask(steps=1)))

  return parallel.vmap(following, in_axes=(None, 0))(operator_params, memory)


@dataclasses.dataclass(frozen=True)
class Cast:
  """Who takes part.

  Attributes:
    operator, operator_params: that imitators imitate with.
    pretending, pretending_params: C.
    play: makes experience of E episodes.
  """

  operator: Operator
  operator_params: Any
  pretending: Operator
  pretending_params: Any
  play: Play

  def imitations(self, distortion: Distortion, trajectory: Trajectory) -> Params:
    """See `imitations`."""
    return imitations(self.operator, self.operator_params, distortion, trajectory)

  def predictions(self, scenes: Scenes, trajectory: Trajectory, watched: int | None = None) -> Params:
    """What C takes the imitations [B, ...] to be of those who are seen last [B, E, T, ...], by the imitators of scenes
    [B, P, ...], of which it has seen so many agents imitated; all by default."""
    num, places = scenes.weight.shape[:2]
    memory = memory_in_turns(
      scenes, np.tile(np.arange(places), (num, 1)), np.full(num, places if watched is None else watched), trajectory,
      self.pretending.config.steps_kept,
    )
    return _next(self.pretending, self.pretending_params, parallel.spread(memory))


def distances(
  cast: Cast, agents: Params, tasks: Task, imitators: Sequence[tuple[Scenes, Distortion]], rng_key: chex.PRNGKey
) -> dict[str, np.ndarray]:
  """How far the real imitations are from what C takes them to be, and from others.

  The first imitator imitates the agents, the second one the first one's imitations, and so on: so many depths. C plays
  what it takes an imitation to be, and is asked again with what it has seen of the next imitator.

  Args:
    cast: who takes part.
    agents: [B, ...] policies, D of each task.
    tasks: [B].
    imitators: of each depth the scenes [B, P, ...] in which C has seen them, and their distortions [B, ...].
    rng_key: for starts and actions.

  Returns:
    {name: [depths, B]} mean absolute difference of mean actions from the real imitation, at states that either of both
    visits. Of the 'prediction'; of that of a depth 'less'; of the one for 'another' imitator, and of the one for an
    imitator of whom 'nothing' was seen; of the 'original', which is D itself; of the operator's 'own' imitation of D;
    and of the real imitation, made 'again' of other episodes of D.
  """
  def play(params, name):
    return cast.play(params, tasks, stream(rng_key, name))

  def chain(name, trajectory, imitate):
    found = []
    for depth, (scenes, distortion) in enumerate(imitators):
      params = imitate(scenes, distortion, trajectory)
      trajectory = play(params, f'{name} {depth}')
      found.append((params, trajectory))
    return found

  def really(scenes, distortion, trajectory):
    return cast.imitations(distortion, trajectory)

  shown, num = play(agents, 'shown'), batch_size(tasks)
  own, others = imitated(cast.operator, cast.operator_params, shown), np.roll(np.arange(num), 1)
  real = chain('real', shown, really)
  predicted = chain('prediction', shown, lambda scenes, _, seen: cast.predictions(scenes, seen))
  found = {
    'prediction': predicted, 'less': [(agents, shown), *predicted[:-1]],
    'another': chain('another', shown, lambda scenes, _, seen: cast.predictions(take(scenes, others), seen)),
    'nothing': chain('nothing', shown, lambda scenes, _, seen: cast.predictions(scenes, seen, 0)),
    'original': [(agents, shown)] * len(imitators), 'own': [(own, play(own, 'own'))] * len(imitators),
    'again': chain('again', play(agents, 'shown again'), really),
  }
  return {
    name: np.stack([_apart(cast.operator.policy, *both) for both in zip(real, one)]) for name, one in found.items()
  }


def _apart(policy: policies.Policy, first: tuple[Params, Trajectory], second: tuple[Params, Trajectory]) -> np.ndarray:
  """[B], of two policies with what they did."""
  act = [functools.partial(mean_action, policy, params) for params, _ in (first, second)]
  return np.mean([apart(*act, trajectory) for _, trajectory in (first, second)], axis=0)
