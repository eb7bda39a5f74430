"""Labels, and the masks that they draw, as other programs write them beside a folder of pictures."""
