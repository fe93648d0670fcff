"""One module a sub-command of ``barewire``.

Each has a docstring (its first line is the help text), ``add_arguments(parser)`` and
``run(args) -> int``, the exit status. They are imported only when asked for, so that
``barewire --help`` stays instant and one missing optional library breaks one command.
"""
