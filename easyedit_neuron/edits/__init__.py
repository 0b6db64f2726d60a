"""What an edit is: its request, its record, and the one place that writes it into a model."""
