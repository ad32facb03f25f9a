"""The demo: a real model, four dictionaries of one of its layers, and what each of them keeps of the model."""
