"""Doors: what people call and what they see. Views without logic of their own."""
