"""What people see of a run: tables, figures, HTML pages, model cards, progress."""
