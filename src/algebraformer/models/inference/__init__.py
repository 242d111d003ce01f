"""What solving needs of a network, in NumPy: readers, one per kind of head, and the layers between them.

A reader scales a system, says what the network reads of it, and turns the network's outputs into answers. The heads of
`models.heads`, which are trained in torch, answer through the same readers.
"""
