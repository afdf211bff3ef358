"""What making an operator costs in environment steps."""

from typing import Any

from metaimprove import files
from metaimprove.histories import storage
from metaimprove.histories.dataset import read_complete_header
from metaimprove.histories.header import planned_shards
from metaimprove.improvers import tuned
from metaimprove.tasks.family import TaskFamily


def histories_env_steps(folder: files.Path, family: TaskFamily) -> dict[str, int | None]:
  """Environment steps of a folder of histories: 'source', which its sources have learned with, and 'histories', which
  recorded the experience of the levels. Learners that stop early count as if they had gone on to the end; learners that
  only fill up a last shard count too. None where a source is not one of `tuned.SOURCES`."""
  header = read_complete_header(folder, family)
  learned = [learned_env_steps(family, header, stored) for stored in header['sources']]
  recorded = sum(
    storage.read_entry(storage.shard_path(folder, entry))['env_steps'] for entry in planned_shards(header)
  )
  return {'source': None if None in learned else sum(learned), 'histories': recorded}


def learned_env_steps(family: TaskFamily, header: dict[str, Any], stored: dict[str, Any]) -> int | None:
  """Environment steps that a source of a header has learned with; None where it is not known."""
  if stored['name'] not in tuned.SOURCES or family.name not in tuned.tuned_families():
    return None
  source = tuned.make_source(
    stored['name'], family, tuple(header['hidden_sizes']), num_updates=stored['settings'].get('num_updates'),
    patience=stored['settings'].get('patience'),
  )
  shard_size = min(header['shard_size'], stored['num_tasks'])
  learners = 1 if source.shared else shard_size * -(-stored['num_tasks'] // shard_size)
  return source.num_updates * source.env_steps_per_update * learners
