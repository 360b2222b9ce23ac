"""Which entries of an ingested directory are dropped, and by which rule.

Patterns are those of gitignore(5). The first of these that has a rule for an entry decides, and
within one of them the last rule that matches:

1. `--exclude PATTERN` drops; `--exclude '!PATTERN'` keeps.
2. `--include PATTERN` keeps. When it is given, a file that no `--include` matches is dropped,
   unless a directory above it is matched; directories are walked in any case.
3. `--ignore-file FILE`, the later over the earlier.
4. `.rnignore`, `.castignore`: a deeper directory over a higher, in one directory `.rnignore` over
   `.castignore`. `!PATTERN` takes what git ignores.
5. Git's own rules, when they apply: `.gitignore`, a deeper directory over a higher, then
   `.git/info/exclude`, then the user's core.excludesFile. They never drop a file that git tracks.

So castfs's own rule files, however high, win over a `.gitignore`, however deep: the `*` that tools
write into the `.gitignore` of their caches can be undone from the root, with `!/cache/**`.

A dropped directory is not walked, so no rule of 3 to 5 takes anything below it again. Two things
are found in it all the same: files that git tracks, if a rule of git dropped it; and what 1 and 2
keep by a pattern that names its directories, as `--include 'data/raw/*.csv'` does though
`.gitignore` has `data/`.

To take a directory is not to take what other rules drop in it: `--include dist/` takes `dist`
though `.gitignore` has it, and leaves out `dist/x.o` if that has `*.o`; `--include 'dist/**'` takes
all there is.

Git's rules apply when the ingested directory is the root of a work tree, or with `--gitignore`;
then also those from the directories above it up to the work tree's root. Where they apply `.git`
is never taken. A clone or submodule below the root obeys its own rules of git, and those of the
tree around it decide only whether it is taken at all; 1 to 4 go on inside it. Elsewhere 1 to 4 are
all there is, and `.git` is a directory like others.

`--no-ignore` looks for no rule file (4 and 5), and takes `.git`.

Git's core.ignoreCase is not obeyed: names differ by case.
"""

from castfs.ignore.opening import IgnoreOptions, open_root_scope
from castfs.ignore.rules import Rule
from castfs.ignore.scope import Scope

__all__ = ["IgnoreOptions", "Rule", "Scope", "open_root_scope"]
