"""How videos are carried through stages. Knows no model and no codec."""
