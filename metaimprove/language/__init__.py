"""What people say of episodes, and what they ask for in words."""
