"""What people see of a run: tables, figures, the HTML page, progress."""
