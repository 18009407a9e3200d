"""Running a tool: what is shown of it, how it fails, how it stops."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmaqd.demo import commands
from mmaqd.demo.commands import ToolError, run_tool, shown_path, tool_path


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Writes a tool of the given source and returns its name."""
    monkeypatch.setattr(commands, '_ROOT', tmp_path)
    (tmp_path / 'tools').mkdir()

    def write(source: str) -> str:
        (tmp_path / 'tools' / 'tool.py').write_text(source)
        return 'tool.py'

    return write


@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_our_tools_are_found(name):
    assert tool_path(name).is_file()


def test_shown_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / 'a' / 'b') == 'a/b'
    assert shown_path('a') == 'a'
    assert shown_path(tmp_path.parent) == str(tmp_path.parent)


def test_shown_path_goes_through_links(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / 'here', tmp_path / 'elsewhere'
    here.mkdir()
    elsewhere.mkdir()
    (here / 'work_dirs').symlink_to(elsewhere)
    (tmp_path / 'link').symlink_to(here)
    monkeypatch.chdir(here)
    assert shown_path('work_dirs/a') == shown_path(here / 'work_dirs' / 'a') == 'work_dirs/a'
    assert shown_path(tmp_path / 'link' / 'b') == 'b'


def test_command_and_progress_are_shown(tool, tmp_path, monkeypatch):
    name = tool('print("long config")\n'
                'print("11/23 14:16:50 - mmengine - INFO - Epoch(train)  [1][50/50]  loss: 1.5")')
    monkeypatch.chdir(tmp_path)
    lines = []
    run_tool(name, ['a b', '--resume'], dict(DATA='x y'), lines.append)
    assert lines == [
        "$ DATA='x y' python tools/tool.py 'a b' --resume",
        '    Epoch(train)  [1][50/50]  loss: 1.5'
    ]


def test_arguments_and_environment_arrive(tool, tmp_path):
    name = tool('import os, pathlib, sys\n'
                'pathlib.Path(sys.argv[1]).write_text(os.environ["DATA"])')
    run_tool(name, [str(tmp_path / 'out')], dict(DATA='here'), lambda line: None)
    assert (tmp_path / 'out').read_text() == 'here'


def test_a_failing_tool_shows_the_end_of_its_output(tool):
    name = tool('for i in range(100): print("line", i)\nraise SystemExit("no such file")')
    with pytest.raises(ToolError, match='exit code 1') as error:
        run_tool(name, [], report=lambda line: None)
    assert 'no such file' in str(error.value) and 'line 90' in str(error.value)
    assert 'line 5\n' not in str(error.value)


def test_an_interruption_stops_the_tool(tool, tmp_path):
    name = tool('import os, pathlib, time\n'
                f'pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))\n'
                'print("- INFO - Epoch(train) 1")\n'
                'time.sleep(600)')

    def interrupt(line):
        if 'Epoch' in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tool(name, [], report=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'pid').read_text()), 0)


@pytest.mark.skipif(sys.platform != 'linux', reason='only the Linux kernel ends orphans for us')
def test_a_killed_caller_takes_the_tool_along(tmp_path):
    pid_file = tmp_path / 'pid'
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'tool.py').write_text(
        'import os, pathlib, time\n'
        f'pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n'
        'time.sleep(600)')
    caller = subprocess.Popen([
        sys.executable, '-c', 'import sys; from pathlib import Path; '
        'from mmaqd.demo import commands; '
        f'commands._ROOT = Path({str(tmp_path)!r}); commands.run_tool("tool.py", [])'
    ],
                              cwd=Path(__file__).parents[2])
    tool_pid = _wait_for(lambda: int(pid_file.read_text()))
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert _wait_for(lambda: _is_gone(tool_pid))


def _is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] == 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return True


def _wait_for(condition):
    """The first true value of ``condition``; a failing or false one is asked again."""
    for _ in range(2400):
        try:
            value = condition()
            if value:
                return value
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError('waited in vain')
