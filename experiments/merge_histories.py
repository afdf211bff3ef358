"""Joins folders of histories into one, for training on all of them.

They must be of one family and shape; no two may hold histories by the same source with the same seed. The folders stay
as they are. Can be stopped at any moment; run again, it goes on where it was.

  python -m experiments.merge_histories --folder=runs/both --histories=runs/seed0/histories,runs/seed1/histories
"""

from absl import flags

from experiments import console
from metaimprove.histories import merge

FLAGS = flags.FLAGS

if __name__ == '__main__':
  flags.DEFINE_string('folder', 'runs/merged/histories', 'Where the joined histories go.')
  flags.DEFINE_list('histories', [], 'The folders to join.')


def main():
  if len(FLAGS.histories) < 2:
    raise flags.ValidationError('--histories needs two or more folders, with commas between them')
  progress = console.Progress()
  merge.merge(FLAGS.folder, FLAGS.histories, progress=progress)
  print(f'The joined histories are in {FLAGS.folder}; inspect_histories tells what they are.')


if __name__ == '__main__':
  console.launch(main)
