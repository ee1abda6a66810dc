"""What people see of an experiment: lines and tables in a terminal, and a table that lives."""
