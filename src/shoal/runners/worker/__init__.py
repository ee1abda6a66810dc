"""What runs in a worker: a process that trains, step after step, members whose states it holds."""
