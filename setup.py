"""Installs `metaimprove`; `constraints.txt` has the exact set of versions it is developed and measured with."""

import itertools
import pathlib

import setuptools

EXTRAS = {
  'dm_env': ['dm_env>=1.6'],
  'docs': ['pdoc>=15'],
  'gymnasium': ['gymnasium[mujoco]>=1.1,<2'],
  'minari': ['minari[hdf5]>=0.5.3'],
  'onnx': ['onnx>=1.16'],
}

# Wants a newer JAX than Brax's PPO runs on, so it has a virtual environment of its own: `make playground`.
PLAYGROUND = ['playground>=0.2']

setuptools.setup(
  name='metaimprove',
  version='0.1.0',
  description='Learned policy improvement operators: supervised learning of the step from a policy to a better one.',
  long_description=pathlib.Path(__file__).with_name('README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=setuptools.find_packages(include=['metaimprove', 'metaimprove.*']),
  package_data={
    'metaimprove': ['__init__.pyi', 'py.typed'], 'metaimprove.evaluation': ['*.html'],
    'metaimprove.language': ['*.json', '*.safetensors'],
    'metaimprove.operators': ['trained/*/*'],
  },
  python_requires='>=3.11',
  install_requires=[
    'absl-py>=2.1',
    'brax>=0.14.2,<0.15',
    'chex>=0.1.91',
    'dm-haiku>=0.0.16',
    'evosax>=0.3.2,<0.4',
    'grain>=0.2.12',
    'jax>=0.9',
    'jinja2>=3.1',
    'lazy_loader>=0.4',
    'matplotlib>=3.9',
    'mujoco-mjx>=3.3',
    'numpy>=2.0',
    'optax>=0.2.5',
    'safetensors>=0.5',
    'scipy>=1.14',
    'tensorboard>=2.18',
    'tensorboardX>=2.6',
    'tqdm>=4.66',
  ],
  # pytest 9.2 does not see the groups in which pytest-xdist 3.8 keeps tests that share a compiled program together.
  extras_require={
    **EXTRAS,
    'playground': PLAYGROUND,
    'test': [
      *itertools.chain(*EXTRAS.values()), 'hypothesis>=6.100', 'onnxruntime>=1.18', 'pytest>=8,<9.2',
      'pytest-xdist>=3.6', 'ruff>=0.9',
    ],
  },
)
