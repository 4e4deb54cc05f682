"""The drivers that ship with Cowshed; each imports only what a third party may."""
