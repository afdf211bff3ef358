"""Learned policy improvement operators: from a policy's experience to a better policy, by inference alone.

The public names are listed in `__init__.pyi`, where editors and type checkers find them. Each is imported when
it is first used, so that `import metaimprove` takes next to no time.
"""

import lazy_loader

__version__ = '0.1.0'

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
