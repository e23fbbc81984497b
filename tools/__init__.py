"""What makes and checks the book; nothing that a notebook imports."""
