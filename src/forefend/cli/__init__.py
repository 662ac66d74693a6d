"""The command line: one file for each command, with `main(arguments) -> exit code`."""
