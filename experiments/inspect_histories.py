"""Tells what a folder of histories holds, compares every shard with its checksum, and draws the learning curves.

  python -m experiments.inspect_histories --histories=runs/quickstart/histories

With --repair, shards that are damaged or missing are made again, and only those.
"""

import pathlib
import sys

from absl import flags

from experiments import console
from metaimprove import files
from metaimprove.errors import IncompatibleError
from metaimprove.histories import card as cards
from metaimprove.histories import storage
from metaimprove.histories.collect import collect
from metaimprove.histories.dataset import check_family
from metaimprove.histories.header import planned_shards, read_header
from metaimprove.histories.reference import final_policies
from metaimprove.improvers import tuned
from metaimprove.tasks.registry import make_family
from metaimprove.types import silent

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('histories', 'runs/quickstart/histories', 'The folder.')
  flags.DEFINE_string('output', None, 'Where card.json, curves.png, TensorBoard files go; HISTORIES/card by default.')
  flags.DEFINE_bool('repair', False, 'Make damaged and missing shards again.')


def print_card(card):
  header = card['header']
  print(
    f'{header["family"]} on {header["backend"]}, task suite version {header["task_suite_version"]}, randomised: '
    f'{", ".join(header["dynamics"]) or "nothing"}'
  )
  print(
    f'{header["num_checkpoints"]} checkpoints a history, chosen among {header["num_candidates"]} measured in '
    f'{header["num_measured"]} episodes; {header["num_episodes"]} episodes of experience each, '
    f'{card["bytes"] / 1e6:,.1f} MB'
  )
  for source in card['sources']:
    print(
      f'\n{source["name"]}, seed {source["seed"]}: {source["histories"]:,d} of {source["planned"]:,d} histories, '
      f'{source["env_steps"]:,d} environment steps, {source["non_finite_episodes"]} episodes blew up'
    )
    for name, value in source['figures'].items():
      print(f'  mean {name.replace("_", " ")} {"unknown" if value is None else f"{value:.3g}"}')
    if source['mean_return']:
      print(
        f'  the mean return rises in {source["share_rising"]:.0%} of the steps; rank correlation with checkpoints '
        f'{source["rank_correlation"]:.2f}'
      )
      columns = ' '.join(f'{f"{float(quantile):.0%}":>10s}' for quantile in source['quantiles'])
      print(f'  {"checkpoint":>10s} {"mean return":>12s} {columns}')
      for index, values in enumerate(zip(source['mean_return'], *source['quantiles'].values())):
        print(f'  {index:10d} {values[0]:12.2f} ' + ' '.join(f'{value:10.2f}' for value in values[1:]))
  print(f'\n{len(card["missing"])} shards are missing, {len(card["damaged"])} are damaged.')
  for kind in ('missing', 'damaged'):
    for name in card[kind]:
      print(f'  {kind}: {name}')


def write_card(output, card):
  files.write_json(output / 'card.json', card)
  cards.draw_card(output / 'curves.png', card)
  board = console.TensorBoard(output / 'tensorboard')
  for index in range(card['header']['num_checkpoints']):
    board(index, {
      f'return/{source["name"]}-{source["seed"]}': source['mean_return'][index]
      for source in card['sources'] if source['mean_return']
    })
  board.close()


def repair(folder, card, progress=silent):
  """Deletes what is damaged and collects what is missing, source by source, each with its own settings. Nothing is
  deleted before it is known that it can be made again."""
  header = read_header(folder)
  family, wanting = make_family(header['family'], header['backend']), {*card['missing'], *card['damaged']}
  check_family(folder, header, family)
  broken = {(e['source'], e['seed']) for e in planned_shards(header) if e['file'] in wanting}
  broken = [source for source in header['sources'] if (source['name'], source['seed']) in broken]
  for source in broken:
    if source['settings'] != tuned.settings_of(family, source):
      raise IncompatibleError(
        f'{source["name"]} with seed={source["seed"]} was not made by collect_histories. Delete the shards named above '
        'and run again what made it; it makes just those.'
      )
  sources = [_source_of(folder, family, source) for source in broken]
  for name in card['damaged']:
    storage.shard_path(folder, {'file': name}).unlink()
  for source, stored in zip(sources, broken):
    collect(folder, family, [(source, stored['num_tasks'])], seed=stored['seed'], progress=progress)


def _source_of(folder, family, stored):
  """The source with the settings that are stored in a header."""
  settings = stored['settings']
  return tuned.make_source(
    stored['name'], family, tuple(settings['hidden_sizes']), num_updates=settings.get('num_updates'),
    patience=settings.get('patience'),
    base=final_policies(folder, family, stored['seed']) if stored['name'] in tuned.LADDERS else None,
  )


def main():
  folder, progress = pathlib.Path(FLAGS.histories), console.Progress()

  card = cards.make_card(folder, progress)
  print_card(card)
  if FLAGS.repair and (card['missing'] or card['damaged']):
    repair(folder, card, progress)
    card = cards.make_card(folder, progress)
    print_card(card)
  output = pathlib.Path(FLAGS.output) if FLAGS.output else folder / 'card'
  write_card(output, card)
  print(f'The learning curves are drawn in {output}/curves.png, all figures are in {output}/card.json.')
  if card['missing'] or card['damaged']:
    print('Run again with --repair to make them again.', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  console.launch(main)
