"""What the binaries share at the terminal: starting, progress bars, time spent, TensorBoard."""

import collections
import contextlib
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tqdm
from absl import app, flags, logging
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from metaimprove import files, types
from metaimprove.errors import MetaImproveError
from metaimprove.evaluation.results import IMPROVEMENTS, Results
from metaimprove.tasks.family import TaskFamily
from metaimprove.tasks.registry import backends_of
from metaimprove.tasks.splits import SPLITS, sample_tasks
from metaimprove.trees import take

_SECONDS = 'wall_seconds.json'
_TRAINING_SECONDS = 'training_wall_seconds.json'
_PARTS = {
  'learn explorer': 'explorers', 'learn ': 'source', 'record ': 'histories', 'play rounds': 'rounds',
  'validation figures': 'validation_figures', 'train operator': 'gradient_steps',
}
"""How the stage that progress tells of begins -> the part of training."""
_TICK = 5.0
"""Seconds between two savings of the time spent."""
_joined: list[int] = []


def launch(main: Callable[..., None], argument: str | None = None) -> None:
  """Runs `main()` after parsing flags; an error the user can act on ends it with one line instead of a traceback. Where
  an `argument` is wanted, which this describes, `main` is given that."""
  def run(argv):
    if argument is None and len(argv) > 1:
      raise app.UsageError(f'unexpected argument {argv[1]!r}; flags are written --name=value')
    if argument is not None and len(argv) != 2:
      raise app.UsageError(f'exactly one argument is wanted besides flags: {argument}')
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # some import turns on informational lines
    try:
      main(*argv[1:])
    except MetaImproveError as error:
      print(f'error: {error}', file=sys.stderr)
      sys.exit(1)
    except KeyboardInterrupt:
      print('stopped; run the same command again to go on from here', file=sys.stderr)
      sys.exit(130)
    except RuntimeError as error:
      if not _joined:
        raise
      print(f'error: {error}\nOne of the processes has died; run all of them again to go on.', file=sys.stderr)
      sys.stderr.flush()
      os._exit(1)  # an orderly end would wait for the one that has died

  app.run(run)


def define_process_flags() -> None:
  """The flags that `join_processes` reads."""
  flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first of several processes; on clusters JAX knows it.')
  flags.DEFINE_integer('num_processes', 1, 'How many processes of JAX work together.', 1)
  flags.DEFINE_integer('process', 0, 'Which of them this is.', 0)


def join_processes() -> None:
  """Makes this one of several processes that work together; must come before anything else of JAX."""
  if flags.FLAGS.num_processes > 1:
    import jax

    jax.distributed.initialize(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process)
    _joined.append(flags.FLAGS.process)


def command_line() -> str:
  """The command that is running, as one would type it."""
  module = sys.modules['__main__'].__spec__
  start = ['python', '-m', module.name] if module else ['python', sys.argv[0]]
  return shlex.join([*start, *sys.argv[1:]])


def define_task_flags() -> None:
  """Flags for one task of a family; see `chosen_tasks`."""
  flags.DEFINE_integer('task', 0, 'Which task of the split, from 0.', 0)
  flags.DEFINE_enum('split', 'heldout', SPLITS, 'Which tasks.')
  flags.DEFINE_integer('seed', 0, 'Of the tasks, the initial policies and the episodes.')


def chosen_tasks(family: TaskFamily) -> types.Task:
  """The task [1] that the flags choose, which is told of."""
  values = flags.FLAGS
  tasks = take(sample_tasks(family, values.seed, values.task + 1, values.split), slice(values.task, values.task + 1))
  print(f'Task {values.task} of {values.split}: {family.describe(take(tasks, 0))}.')
  return tasks


def command_for(**values: Any) -> str:
  """The command of the running binary with these flags alone, as one would type it."""
  given = [f'--no{n}' if v is False else f'--{n}' if v is True else f'--{n}={v}' for n, v in values.items()]
  return shlex.join(['python', '-m', sys.modules['__main__'].__spec__.name, *given])


def benchmark_command(family: str, backend: str, seeds: Sequence[int]) -> str:
  """The command that makes the row of a family on a backend."""
  command = f'python -m experiments.benchmark_operators --families={family} --seeds={",".join(map(str, seeds))}'
  return command if backend == next(iter(backends_of(family))) else f'{command} --backend={backend}'


def print_results(results: Results) -> None:
  """The figures of an evaluation as short tables, controls beside the operator.

  Raises:
    NoScoreError: if there is nothing to show.
  """
  results.check_scored()
  _print_curves(results)
  _print_needs(results)
  _print_tasks(results)
  _print_comparisons(results)
  _print_bill(results)


def print_summary(results: Results) -> None:
  """One line of a family that is shown beside another one."""
  main, episodes = results.normalised_return, results.episodes
  points = sorted({n for n in (1, 2, 4, 8, len(episodes) - 1) if n < len(episodes)})
  figures = ', '.join(f'{shown(main["mean"][n])} ({shown(main["found"][n])})' for n in points)
  print(
    f'{results.family}: mean score, and share of {results.heldout_tasks} held-out tasks found, after '
    f'{", ".join(str(episodes[n]) for n in points)} episodes: {figures}\n'
  )


_SHORT = {
  'told_goal': 'told the goal only', 'no_experience': 'one policy for all', 'identify': 'identify',
  'identify_once': 'identify by one episode',
  'shuffled_experience': "another task's experience", 'operator_no_explore': 'not asked to explore',
}
"""Of the controls."""


def _print_curves(results: Results) -> None:
  """The operator's curve, and beside it those of far tasks and controls."""
  main, several, last = results.normalised_return, results.num_seeds > 1, len(results.env_steps) - 1
  curves = {} if results.sampled is None else {'sampled': results.sampled}
  curves = {**curves, 'far tasks': results.far} | {
    _SHORT[name]: figures for name, figures in results.controls.items() if len(figures['iqm']) > 1
  }
  seeds = f', {results.num_seeds} seeds' if several else ''
  print(f'\n{results.family}: score on {results.heldout_tasks} held-out tasks{seeds} (IQM, 95% interval over tasks)')
  spread = '  range over seeds' if several else ''
  sparse = f'  {"mean":>6s}  {"found":>6s}' if results.sparse else ''
  print(f'  applications  env steps  {"operator":23s}{spread}{sparse}' + ''.join(f'  {name:>14s}' for name in curves))
  for n in sorted({n for n in (0, 1, 2, 3, 4, 10, 20, last) if n <= last}):
    spread = f'  {_seed_range(results, n):16s}' if several else ''
    others = ''.join(f'  {shown(figures["iqm"][n]):>{max(14, len(name))}s}' for name, figures in curves.items())
    sparse = ''.join(f'  {shown(main[end][n]):>6s}' for end in ('mean', 'found')) if results.sparse else ''
    print(f'  {n:12d}  {results.env_steps[n]:9,d}  {_with_interval(main, n):23s}{spread}{sparse}{others}')
  for name, figures in results.controls.items():
    if len(figures['iqm']) == 1:
      print(f'  control: {_SHORT[name]:24s} {_with_interval(figures, 0)}')
  print(f'  Intervals are over tasks, for {"these operators" if several else "this one operator"}.')


def _print_needs(results: Results) -> None:
  if results.identify_reads is not None:
    print(f'  identify learned from {results.identify_reads}.')
  need = ', '.join(f'{name.replace("_", " ")} {shown(value)}' for name, value in results.need.items())
  print(f'  needs: {need}')
  print(f'  {results.verdict}')


def _print_tasks(results: Results) -> None:
  """What there is to say of tasks without a score, and of points that blew up."""
  for name, count in results.left_out_tasks.items():
    if count:
      print(f'  {count} tasks have no score ({name}): the reference is not known to be better than a random policy.')
  for name, share in results.blown_up.items():
    if share:
      print(f'  {name}: all episodes blew up at {100 * share:.1f}% of its points, which get its worst score, or 0.')


def _print_comparisons(results: Results) -> None:
  for size, figures in results.improvement.items():
    points = sorted({n for n in (1, 2, 4, len(figures['iqm']) - 1) if 0 < n < len(figures['iqm'])})
    scores = ', '.join(shown(figures['iqm'][n]) for n in points)
    print(f'  asked for k = {size}, after applications {", ".join(map(str, points))}: {scores}')
  if results.equal_experience is not None:
    one, two = (_with_interval(results.equal_experience[name], 0) for name in ('one_application', 'two_applications'))
    print(f'  after {results.equal_experience["env_steps"]:,d} env steps: one application {one}, two {two}')
  if results.far_by_parameter:
    far = (f'{name} {shown(part["iqm"][0])} ({part["tasks"]})' for name, part in results.far_by_parameter.items())
    print(f'  far by parameter, after all applications (tasks): {", ".join(far)}')
  names = _SHORT | {name: f'operator (k = {size})' for size, name in IMPROVEMENTS.items()}
  steps = {names.get(name, name.replace('_', ' ')): value for name, value in results.steps_to_target.items()}
  reached = [f'{name} {value:,d}' for name, value in steps.items() if value is not None]
  others = [name for name, value in steps.items() if value is None]
  print(f'  environment steps of a task to {results.target}: {", ".join(reached) or "reached by none"}')
  if reached and others:
    print(f'  {results.target} is not reached by: {", ".join(others)}')
  if results.ppo is not None:
    flat = {True: 'flat', False: 'not flat', None: 'not known'}[results.ppo['flat']]
    print(f'  PPO from scratch, {results.ppo["env_steps"][-1]:,d} steps of a task: its curve is {flat} at the end')


def _print_bill(results: Results) -> None:
  def listed(bill, form):
    return ', '.join(f'{name.replace("_", " ")} {form(value)}' for name, value in bill.items())

  if results.training_wall_seconds:
    print(f'  seconds, of all seeds: {listed(results.training_wall_seconds, "{:,.0f}".format)}')
  bill = results.training_env_steps
  print(f'  environment steps, of one operator: {listed(bill, _steps)}')
  total = _steps(results.total_training_env_steps())
  print(f'  environment steps of training one operator: {total}; {results.paid_back()}\n')


def shown(value: float | None) -> str:
  """A score."""
  return '-' if value is None else f'{value:.3f}'


def interval(figures: Mapping[str, Sequence[float | None]], point: int) -> str:
  """A score with its interval."""
  return f'{shown(figures["iqm"][point])} [{shown(figures["low"][point])}, {shown(figures["high"][point])}]'


def _with_interval(figures: Mapping[str, Sequence[float | None]], point: int) -> str:
  text = interval(figures, point)
  return ' ' * (6 - text.index(' ')) + text  # scores stand below one another, also those below 0


def _steps(value: int | None) -> str:
  return 'not known' if value is None else f'{value:,d}'


def _seed_range(results: Results, point: int) -> str:
  """The lowest and the highest IQM of the seeds at a point."""
  known = [seed[point] for seed in results.per_seed['iqm'] if seed[point] is not None]
  return f'{min(known):.3f} to {max(known):.3f}'


class Progress:
  """A `types.Progress` that draws one bar a stage."""

  def __init__(self):
    self._bar, self._stage = None, None

  def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    if stage != self._stage:
      self.close()
      self._stage = stage
      self._bar = tqdm.tqdm(
        total=total, initial=max(0, done - 1), desc=stage, dynamic_ncols=True, mininterval=0.5, file=sys.stdout,
        bar_format='{desc:<32} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]',
      )
    self._bar.set_postfix({k: f'{v:,.4g}' for k, v in figures.items()}, refresh=False)
    self._bar.update(done - self._bar.n)
    if done >= total:
      self.close()

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
    self._bar, self._stage = None, None


@contextlib.contextmanager
def stage(folder: pathlib.Path, name: str) -> Iterator[types.Progress]:
  """A stage of a command: gives a progress bar, and adds the seconds spent to those of earlier runs, in files of
  `folder`: of the stage, and of the parts of training that its progress tells of. A kill loses those since the last
  tick."""
  progress, before, parts_before = Progress(), read_seconds(folder), read_training_seconds(folder)
  began = saved = last = time.perf_counter()
  parts = collections.Counter()

  def save():
    spent = {name: before.get(name, 0.0) + time.perf_counter() - began}
    spent_of_parts = {part: parts_before.get(part, 0.0) + seconds for part, seconds in parts.items()}
    for file, earlier, new in (
      (_SECONDS, read_seconds(folder), spent), (_TRAINING_SECONDS, read_training_seconds(folder), spent_of_parts),
    ):
      files.write_json(folder / file, {**earlier, **{part: round(seconds, 1) for part, seconds in new.items()}})

  def watched(shown, done, total, figures):
    nonlocal saved, last
    now = time.perf_counter()
    part = _part_of_training(name, shown)
    if part is not None:
      parts[part] += now - last
    last = now
    if now - saved > _TICK:
      saved = now
      save()
    progress(shown, done, total, figures)

  try:
    yield watched
  finally:
    progress.close()
    save()


def _part_of_training(stage_name: str, shown: str) -> str | None:
  """Whose seconds those before a call of progress are; None for what does not make an operator."""
  if stage_name == 'controls':
    return stage_name
  return next((part for start, part in _PARTS.items() if shown.startswith(start)), None)


def read_seconds(folder: pathlib.Path) -> dict[str, float]:
  """Seconds by stage, as `stage` kept them."""
  return _read_json(folder / _SECONDS)


def read_training_seconds(folder: pathlib.Path) -> dict[str, float]:
  """Seconds by part of training, as `stage` kept them; see `Results.training_wall_seconds`."""
  return _read_json(folder / _TRAINING_SECONDS)


def _read_json(path: pathlib.Path) -> dict[str, float]:
  return files.read_json(path) if path.exists() else {}


class TensorBoard:
  """Figures to TensorBoard, in one file a start of the program.

  What is given is on its way to the disk at once, so that nothing is lost when the program is killed. After a resume,
  figures of steps that are logged again replace those from before the stop.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder, self._writer = pathlib.Path(folder), None

  def __call__(self, step: int, figures: Mapping[str, float], /) -> None:
    if self._writer is None:
      self._folder.mkdir(parents=True, exist_ok=True)
      # Two starts within a second would have the same name without the process.
      self._writer = event_file_writer.EventsWriter(str(self._folder / 'events'), f'.{os.getpid()}')
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._writer.write_event(event_pb2.Event(step=step, wall_time=time.time(), session_log=start))
    for name, value in figures.items():
      scalar = summary.scalar(name, value)
      self._writer.write_event(event_pb2.Event(step=step, wall_time=time.time(), summary=scalar))
    self._writer.flush()

  def close(self) -> None:
    """Ends the file; what is given afterwards goes to another one."""
    if self._writer is not None:
      self._writer.close()
    self._writer = None
