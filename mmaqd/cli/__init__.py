"""The command ``mmaqd``: one file for each subcommand, which the scripts in tools/ call too.

Here are command lines only: each reads its arguments and calls one function of the library, which
it imports after the arguments are read, so that help is there at once.
"""
