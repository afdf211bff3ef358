"""Several answers to one question, and how likely each is: what is not known yet can be tried out one by one.

A mixture over codes. Its modes are learned by stochastic expectation maximisation, but for those that stand for
explorers, which are said: see `training.loss`. With one answer it is a plain regression, whose answer to an open
question lies in the middle of all that may be right.
"""

import chex
import haiku as hk
import jax
import jax.numpy as jnp


def answer(summary: chex.Array, *, num_answers: int, width: int, code_size: int) -> tuple[chex.Array, chex.Array]:
  """The answers that a summary leaves open; to be called inside a Haiku transform.

  Args:
    summary: [S] of a memory and an ask.
    num_answers: M.
    width: half the size of the hidden layer.
    code_size: size of a code.

  Returns:
    [M, code_size] the code of each answer, and [M] the logarithm of how likely each is.
  """
  hidden = hk.Linear(2 * width, name='hidden')(summary)
  if num_answers == 1:
    return hk.Linear(code_size, name='code')(jax.nn.swish(hidden))[None], jnp.zeros(1)
  own = hk.get_parameter('answers', (num_answers, 2 * width), init=hk.initializers.TruncatedNormal(1.0))
  codes = hk.Linear(code_size, name='code')(jax.nn.swish(hidden + own))
  return codes, jax.nn.log_softmax(hk.Linear(num_answers, name='likelihood')(summary))
