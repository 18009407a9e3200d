"""Commands by name, in groups: their help, and the call of the one that was named."""
from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Mapping, Sequence

USAGE_ERROR = 2  # the exit status, as argparse's
MISSING_PACKAGE = 1


@dataclass(frozen=True)
class Command:
    """One line of the help.

    Attributes:
        name: What the user types.
        place: ``module`` or ``module:function``; the function (``main`` by default) takes the
            arguments and ``prog``, the words in front of them, and gives an exit status or None.
        summary: One sentence.
    """

    name: str
    place: str
    summary: str

    def run(self, argv: Sequence[str], prog: str) -> int:
        """Call it; the exit status."""
        module, _, function = self.place.partition(':')
        try:
            called = getattr(import_module(module), function or 'main')
        except ModuleNotFoundError as error:
            print(f'{prog}: {_what_is_missing(error)}', file=sys.stderr)
            return MISSING_PACKAGE
        return called(argv, prog) or 0


def _what_is_missing(error: ModuleNotFoundError) -> ImportError:
    """The error that says what to install, where a package of MMDetection's stack is missing."""
    try:
        from mmaqd.compat import check_versions
        check_versions()
    except ImportError as better:
        return better
    raise error


@dataclass(frozen=True)
class Table:
    """What a word such as ``mmaqd`` can be followed by.

    Attributes:
        about: The first sentence of the help.
        groups: Commands by the title of their group.
    """

    about: str
    groups: Mapping[str, Sequence[Command]]

    @property
    def commands(self) -> dict[str, Command]:
        """All commands by name."""
        return {each.name: each for group in self.groups.values() for each in group}

    def help(self, prog: str) -> str:
        """The text of ``prog --help``."""
        width = max(map(len, self.commands))
        lines = [f'usage: {prog} COMMAND ...', '', self.about]
        for title, group in self.groups.items():
            lines += ['', f'{title}:']
            lines += [f'  {each.name:<{width}}  {each.summary}' for each in group]
        return '\n'.join([*lines, '', f'{prog} COMMAND --help lists the arguments of a command.'])

    def run(self, argv: Sequence[str], prog: str) -> int:
        """Run the command that the first argument names; the exit status."""
        name, *rest = argv or ['--help']
        if name in ('-h', '--help'):
            print(self.help(prog))
            return 0
        if name in self.commands:
            return self.commands[name].run(rest, f'{prog} {name}')
        print(self._unknown(name, prog), file=sys.stderr)
        return USAGE_ERROR

    def _unknown(self, name: str, prog: str) -> str:
        close = get_close_matches(name, self.commands, n=1)
        meant = f' Did you mean {close[0]!r}?' if close else ''
        return (f'{prog}: there is no command {name!r}.{meant} There are: '
                f'{", ".join(self.commands)}. {prog} --help says what each does.')
