"""What all wings share: solver, linear algebra, memory, files, progress, checks."""
