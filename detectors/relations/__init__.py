"""How features go together: derived columns of rows, texts and vectors."""
