"""Chain-of-thought data: proposed by a teacher, verified by the one judge, selected, and accounted for."""
