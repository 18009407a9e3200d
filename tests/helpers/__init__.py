"""What several test modules share. Nothing here is part of the package."""
