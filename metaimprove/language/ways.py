"""In which words things are said: `ways.json`."""

import json
import pathlib

WAYS = json.loads((pathlib.Path(__file__).parent / 'ways.json').read_text())
"""Of 'clauses', by property and clause, of rising numbers, the ways to say each, the last one kept for tests; of
'numbers', by unit, the same; and 'leads', 'before' and 'after', which stand around what is said and say nothing."""
