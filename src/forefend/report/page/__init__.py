"""Pages of sections, tables and figures, as one HTML file, Markdown or JSON."""
