"""MCDM, the Motion-prior Conditional Diffusion Model (arXiv 2502.09533): train, generate, evaluate."""
