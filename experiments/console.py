"""What the binaries share at the terminal: starting, progress bars, time spent, TensorBoard."""

import contextlib
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import tqdm
from absl import app, flags, logging
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from metaimprove import files, types
from metaimprove.errors import MetaImproveError
from metaimprove.evaluation.results import Results

_SECONDS = 'wall_seconds.json'
_TICK = 5.0
"""Seconds between two savings of the time spent."""
_joined: list[int] = []


def launch(main: Callable[[], None]) -> None:
  """Runs `main()` after parsing flags; an error the user can act on ends it with one line instead of a traceback."""
  def run(argv):
    if len(argv) > 1:
      raise app.UsageError(f'unexpected argument {argv[1]!r}; flags are written --name=value')
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # some import turns on informational lines
    try:
      main()
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


def print_results(results: Results) -> None:
  """The figures of an evaluation as short tables, controls beside the operator.

  Raises:
    NoScoreError: if there is nothing to show.
  """
  results.check_scored()
  main = results.normalised_return
  curves = {'far tasks': results.far} | {
    _SHORT[name]: figures for name, figures in results.controls.items() if len(figures['iqm']) > 1
  }
  constants = {name: figures for name, figures in results.controls.items() if len(figures['iqm']) == 1}
  seeds = f', {results.num_seeds} seeds' if results.num_seeds > 1 else ''
  print(f'\n{results.family}: score on {results.heldout_tasks} held-out tasks{seeds} (IQM, 95% interval over tasks)')
  over = '  range over seeds' if results.num_seeds > 1 else ''
  print(f'  applications  env steps  operator               {over} ' + '  '.join(f'{name:>14s}' for name in curves))
  last = len(results.env_steps) - 1
  for n in sorted({n for n in (0, 1, 2, 3, 4, 10, 20, last) if n <= last}):
    interval = f'[{main["low"][n]:.3f}, {main["high"][n]:.3f}]'
    others = '  '.join(f'{_shown(figures["iqm"][n]):>14s}' for figures in curves.values())
    shown = f'{main["iqm"][n]:6.3f} {interval:16s}{_seed_range(results, n)}'
    print(f'  {n:12d}  {results.env_steps[n]:9,d}  {shown} {others}')
  for name, figures in constants.items():
    low, high = _shown(figures['low'][0]), _shown(figures['high'][0])
    print(f'  control: {_SHORT[name]:24s} {_shown(figures["iqm"][0])} [{low}, {high}]')
  print(f'  Intervals are over tasks, for {"these operators" if results.num_seeds > 1 else "this one operator"}.')
  if results.identify_reads is not None:
    print(f'  identify learned from {results.identify_reads}.')
  need = ', '.join(f'{name.replace("_", " ")} {_shown(value)}' for name, value in results.need.items())
  print(f'  needs: {need}')
  print(f'  {results.verdict}')
  for name, count in results.left_out_tasks.items():
    if count:
      print(f'  {count} tasks have no score ({name}): the reference is not known to be better than a random policy.')
  for name, share in results.blown_up.items():
    if share:
      print(f'  {name}: all episodes blew up at {100 * share:.1f}% of its points, which get its worst score, or 0.')
  if results.ppo is not None:
    ppo = results.ppo_env_steps_to_match
    matched = _steps(ppo) if ppo is not None else f'not in {results.ppo["env_steps"][-1]:,d}'
    flat = {True: 'flat', False: 'still rising', None: 'unknown'}[results.ppo['flat']]
    print(
      f'  environment steps of a task to {results.target}: operator {_steps(results.operator_env_steps_to_match)}, PPO '
      f'from scratch {matched} (its curve at the end: {flat})'
    )
  known = [steps for stage, steps in results.training_env_steps.items() if stage != 'controls' and steps is not None]
  paid = f'paid back after {results.break_even_tasks:,d} new tasks' if results.break_even_tasks else 'not paid back'
  print(f'  environment steps of training one operator: {sum(known):,d}, {paid}\n')


_SHORT = {
  'told_goal': 'told the goal only', 'no_experience': 'one policy for all', 'identify': 'identify',
  'shuffled_experience': "another task's",
}


def _shown(value: float | None) -> str:
  return '-' if value is None else f'{value:.3f}'


def _seed_range(results: Results, point: int) -> str:
  """The lowest and the highest IQM of the seeds at a point, as a column; nothing if there is one seed."""
  if results.num_seeds == 1:
    return ''
  known = [seed[point] for seed in results.per_seed['iqm'] if seed[point] is not None]
  return f'  {f"{min(known):.3f} to {max(known):.3f}":16s}'


def _steps(value: int | None) -> str:
  return 'does not reach it' if value is None else f'{value:,d}'


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
  """A stage of a command: gives a progress bar, and adds the seconds spent to those of earlier runs, in a file of
  `folder`. A kill loses those since the last tick."""
  progress, before = Progress(), read_seconds(folder).get(name, 0.0)
  began = saved = time.perf_counter()

  def save():
    seconds = before + time.perf_counter() - began
    files.write_json(folder / _SECONDS, {**read_seconds(folder), name: round(seconds, 1)})

  def watched(*done):
    nonlocal saved
    if time.perf_counter() - saved > _TICK:
      saved = time.perf_counter()
      save()
    progress(*done)

  try:
    yield watched
  finally:
    progress.close()
    save()


def read_seconds(folder: pathlib.Path) -> dict[str, float]:
  """Seconds by stage, as `stage` kept them."""
  path = folder / _SECONDS
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
