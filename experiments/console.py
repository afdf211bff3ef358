"""What the binaries share at the terminal: starting, progress bars, time spent, TensorBoard."""

import os
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping

import tqdm
from absl import app, flags, logging
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from metaimprove import files
from metaimprove.errors import MetaImproveError

_SECONDS = 'wall_seconds.json'
_joined: list[int] = []


def launch(main) -> None:
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


def print_results(results: dict) -> None:
  """The figures of an evaluation as a short table."""
  iqm = results['normalised_return']
  print(f'\n{results["family"]}: normalised return on {results["heldout_tasks"]} held-out tasks (IQM, 95% interval)')
  print('  applications  env steps  operator               far tasks  shuffled experience')
  last = len(results['env_steps']) - 1
  for n in sorted({n for n in (0, 1, 2, 3, 4, 10, 20, last) if n <= last}):
    interval = f'[{iqm["low"][n]:.3f}, {iqm["high"][n]:.3f}]'
    print(
      f'  {n:12d}  {results["env_steps"][n]:9,d}  {iqm["iqm"][n]:6.3f} {interval:15s} '
      f'{results["far"]["iqm"][n]:10.3f}  {results["shuffled_experience"]["iqm"][n]:19.3f}'
    )
  steps, ppo = results['operator_env_steps_to_match'], results['ppo_env_steps_to_match']
  matched = f'{ppo:,d}' if ppo is not None else f'does not reach it in {results["ppo"]["env_steps"][-1]:,d}'
  print(f'  environment steps a task to {results["target"]:.3f}: operator {steps:,d}, PPO from scratch {matched}\n')


class Progress:
  """One progress bar a stage, fed by the `report` callbacks of the library: (stage, done, total, figures)."""

  def __init__(self):
    self._bar, self._stage = None, None

  def __call__(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
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


class Stopwatch:
  """Seconds spent on a stage over all runs of a command, kept in a file; a kill loses those since the last tick."""

  def __init__(self, folder: pathlib.Path, stage: str):
    self._folder, self._stage = folder, stage
    self._before = read_seconds(folder).get(stage, 0.0)
    self._began = self._saved = time.perf_counter()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._save()

  def tick(self) -> None:
    """Called often; writes now and then."""
    if time.perf_counter() - self._saved > 5:
      self._save()

  def _save(self):
    self._saved = time.perf_counter()
    seconds = self._before + self._saved - self._began
    files.write_json(self._folder / _SECONDS, {**read_seconds(self._folder), self._stage: round(seconds, 1)})


def read_seconds(folder: pathlib.Path) -> dict[str, float]:
  """Seconds by stage, as `Stopwatch` kept them."""
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
