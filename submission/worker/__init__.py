"""CodaBench's compute worker on this machine: two jobs, in containers or in processes."""
