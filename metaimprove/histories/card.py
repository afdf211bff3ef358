"""A dataset's card: what a folder of histories holds, and whether it is whole."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaimprove import files
from metaimprove.errors import DamagedDataError
from metaimprove.histories import storage
from metaimprove.histories.header import planned_shards, read_header, without_sources
from metaimprove.histories.reader import OpenShard
from metaimprove.improvers.curves import rank_correlation
from metaimprove.types import Progress, silent

_QUANTILES = (0.1, 0.5, 0.9)


def make_card(folder: files.Path, progress: Progress = silent) -> dict[str, Any]:
  """Reads every shard of a folder and compares it with its checksum.

  Args:
    folder: of the dataset; it need not be complete.
    progress: told of each shard.

  Returns:
    {'header': without the sources, 'bytes', 'missing': [file], 'damaged': [file], 'sources': [{'name', 'seed',
    'histories', 'planned', 'env_steps', 'non_finite_episodes', 'mean_return': [N + 1], 'quantiles': {'0.1': [N + 1],
    ...}, 'share_rising': the share of the steps from a checkpoint to the next on which the mean return rises,
    'rank_correlation': see there, 'figures': {name: mean}, of what a source has stored besides; None where it is not
    known}]}; the returns of a source without histories are empty.

  Raises:
    DamagedDataError: if the folder holds no dataset.
    IncompatibleError: if it is of another format version.
  """
  header = read_header(folder)
  planned = planned_shards(header)
  missing, damaged, num_bytes = [], [], 0
  kept = {(source['name'], source['seed']): [] for source in header['sources']}
  for index, plan in enumerate(planned):
    path = storage.shard_path(folder, plan)
    try:
      if storage.is_there(folder, plan):
        kept[plan['source'], plan['seed']].append(_read_shard(path, header))
      else:
        missing.append(plan['file'])
    except DamagedDataError:
      damaged.append(plan['file'])
    num_bytes += path.stat().st_size if path.exists() else 0
    progress('check shards', index + 1, len(planned), {})
  return {
    'header': without_sources(header), 'bytes': num_bytes, 'missing': missing, 'damaged': damaged,
    'sources': [_source_card(source, kept[source['name'], source['seed']]) for source in header['sources']],
  }


def _read_shard(path: pathlib.Path, header: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
  """The entry of a shard and its returns [H, N + 1]."""
  entry, shard = storage.verify_shard(path), OpenShard(path)
  storage.check_arrays(path, header, entry['num_histories'], shard.arrays())
  return entry, shard.whole('returns')


def _source_card(source: Mapping[str, Any], shards: Sequence[tuple[dict[str, Any], np.ndarray]]) -> dict[str, Any]:
  entries = [entry for entry, _ in shards]
  card = {
    'name': source['name'], 'seed': source['seed'], 'planned': source['num_tasks'],
    'histories': sum(entry['num_histories'] for entry in entries),
    'env_steps': sum(entry['env_steps'] for entry in entries),
    'non_finite_episodes': sum(entry['non_finite_episodes'] for entry in entries),
    'mean_return': [], 'quantiles': {str(q): [] for q in _QUANTILES}, 'share_rising': None, 'rank_correlation': None,
    'figures': {},
  }
  if not shards:
    return card
  returns = np.concatenate([returns for _, returns in shards])
  returns = returns[np.isfinite(returns).all(axis=1)]  # without histories in which all episodes of a policy blew up
  if len(returns):
    card['mean_return'] = returns.mean(axis=0).round(4).tolist()
    card['quantiles'] = {str(q): np.quantile(returns, q, axis=0).round(4).tolist() for q in _QUANTILES}
    card['share_rising'] = float(np.mean(np.diff(returns.mean(axis=0)) > 0))
    card['rank_correlation'] = rank_correlation(returns)
  card['figures'] = {
    name: _mean([value for entry in entries for value in entry[name] if value is not None])
    for name, value in entries[0].items() if isinstance(value, list)
  }
  return card


def _mean(values: Sequence[float]) -> float | None:
  return round(float(np.mean(values)), 4) if values else None


def draw_card(path: files.Path, card: Mapping[str, Any]) -> None:
  """Draws the return of each checkpoint, mean and the middle 80% of the tasks, as a PNG."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 3.6), layout='constrained')
  ax = figure.subplots()
  for source in card['sources']:
    if source['mean_return']:
      line = ax.plot(source['mean_return'], marker='o', markersize=3, label=f'{source["name"]}, seed {source["seed"]}')
      low, _, high = source['quantiles'].values()
      ax.fill_between(np.arange(len(low)), low, high, color=line[0].get_color(), alpha=0.15, linewidth=0)
  header = card['header']
  ax.set(xlabel='checkpoint', ylabel='return an episode', title=f'{header["family"]} ({header["backend"]})')
  if ax.has_data():
    ax.legend(frameon=False, fontsize='small')
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=120)
