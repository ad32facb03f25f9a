"""Studies: each is a folder here, asks one question, and answers it with a report."""

STUDIES = {
    "frontier": "What does a dictionary keep, at equal learned values or bytes, beside dense ones made smaller?",
    "supports": "Does it matter where the values of a column are, or only how many there are?",
    "amortisation": "How much of what small dictionaries lose is the encoder's, and not the dictionary's?",
    "recovery": "How many active features can every coder find exactly, and what does theory say?",
    "coding": "Is it the encoder that fails or the dictionary, where true codes and columns are known?",
    "scaling": "What do more features, active features, values per column and tokens buy?",
    "planted": "How well and how fast do coders find planted codes on a sparse and on a dense dictionary?",
}
"""Every study, by the name of its folder, with the question that it answers."""
