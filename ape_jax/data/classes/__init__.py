"""Classes of labelled images: what a label stands for, and names that are prose."""
