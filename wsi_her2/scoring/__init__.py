"""From patch probabilities to a call: quality gate, percentages, the guideline's rule, confidence."""
