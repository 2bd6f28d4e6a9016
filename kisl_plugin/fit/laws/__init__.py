"""From collapse points to laws: F*(C), F*(D), F*(N, D), what they miss, and the paper's failure signatures."""
