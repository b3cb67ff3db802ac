"""What readings say of each other: causes, costs, what follows from what."""
