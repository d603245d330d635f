"""Names and signatures of other projects' loaders over nanofast's: one changed import is all that a swap takes."""
