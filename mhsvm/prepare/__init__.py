"""From archives and folders to a prepared set."""
