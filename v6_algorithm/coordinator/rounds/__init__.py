"""Training in rounds: who is asked what, whose replies count, the schedule, and how far each fold has come."""
