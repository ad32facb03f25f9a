"""What others read and write, a file for each format."""
