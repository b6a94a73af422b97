"""The daily page: gathered from committed facts, composed into words and charts, drawn as one HTML file."""
