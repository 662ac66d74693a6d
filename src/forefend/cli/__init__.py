"""Commands: one file for each verb of the command line. Each has `main(arguments) -> exit code`."""
