"""The spine: what happened, where it is kept, how it travels. Imports none of the processes."""
