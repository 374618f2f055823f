"""Models in the files of open_clip, https://github.com/mlfoundations/open_clip."""
