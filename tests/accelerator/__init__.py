"""What is checked and measured on a GPU or TPU, by `launch/accelerator.sh`."""
