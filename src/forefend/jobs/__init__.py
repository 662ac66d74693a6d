"""Jobs: the work behind each command, given its parsed options. The commands import a job only once it is wanted."""
