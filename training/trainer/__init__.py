"""The general trainer: any text-to-image or edit model of Stable Diffusion's family, on any set of edited pairs."""
